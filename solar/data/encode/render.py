"""Conversations to text through a chat template: as they are, and with placeholders for their contents."""

import json
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import jinja2

from solar.data.encode.placeholders import fitted, places, thought_and_answer
from solar.data.encode.placeholders import marked as with_marks
from solar.data.encode.sandbox import Sandbox
from solar.data.encode.templates import template_for
from solar.data.read.messages import BadRow, Message

_REASONING_FIELD = re.compile(r"(?:\.|\[[\"']|get\([\"'])(reasoning_content|reasoning|thinking)\b")
_CACHED_MESSAGES = 64
"""Longer conversations are not worth the memory of a cache."""
_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": "y"}}}


class Renderer:
    """One chat template of a tokenizer."""

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        """`template` is a name of `solar.data.encode.templates`, or None for the tokenizer's own."""
        self.tokenizer = tokenizer
        self.template = template
        self._rendered = lru_cache(maxsize=4096)(self._render_marked)  # most conversations differ in contents alone

    @cached_property
    def jinja(self) -> str:
        """The chat template. Raises `DataError` if there is none that this tokenizer can use."""
        return template_for(self.tokenizer, self.template)

    @cached_property
    def _sandbox(self) -> Sandbox:
        """Where the tokenizer's own template runs: a program by whoever made the tokenizer."""
        return Sandbox(self.jinja, self.tokenizer.special_tokens_map, str(self.tokenizer.name_or_path))

    @cached_property
    def _reasoning_fields(self) -> set[str]:
        """The fields of a message in which the template looks for reasoning."""
        return set(_REASONING_FIELD.findall(self.jinja))

    @cached_property
    def _arguments_are_text(self) -> bool:
        """Whether the template writes the arguments of a call only where they are JSON text, not an object."""
        turns: list[Message] = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        ]
        try:
            self._apply(turns, False, as_text=False)
        except BadRow:
            return True
        return False

    def render(
        self, messages: Sequence[Message], generation_prompt: bool, tools: Sequence[Any] = ()
    ) -> tuple[list[Message], str, list[str]]:
        """Messages with placeholders for contents, the text they render to, and the contents of the placeholders.

        Raises `BadRow` if the template changes a content, or has no place for reasoning, tools or their calls.
        """
        messages = [self._with_place_for_reasoning(message) for message in _without_empty_system(messages)]
        self._check_tools(messages, tools)
        real = self._apply(messages, generation_prompt, tools)
        whole = [message["content"] for message in messages]
        thoughts, answers = zip(*map(thought_and_answer, messages), strict=True)
        in_fields = any("reasoning_content" in message for message in messages)
        for marked_messages, contents in (
            *([] if in_fields else [(with_marks(messages), whole)]),
            (with_marks(messages, thoughts), [*answers, *reversed(thoughts)]),
        ):
            text = self.marked(marked_messages, generation_prompt, tools)
            if (as_written := fitted(text, contents, real)) is None:
                continue
            if contents is not whole and thoughts[-1] and -len(messages) not in places(text):
                if "reasoning_content" in messages[-1]:
                    raise BadRow("unsupported_field", "`reasoning_content`, which the template leaves out")
                # The template leaves the thoughts of the last answer to the model: the answer is put in as written.
                marked_messages = with_marks(messages, [*thoughts[:-1], ""])
                text = self.marked(marked_messages, generation_prompt, tools)
                as_written = [*answers[:-1], whole[-1].strip(), *reversed(thoughts)]
            return marked_messages, text, as_written
        raise BadRow("template", "the template rewrites contents, so answers cannot be found in its output")

    def marked(self, messages: Sequence[Message], generation_prompt: bool, tools: Sequence[Any] = ()) -> str:
        """The text of messages whose contents are placeholders already."""
        if tools or len(messages) > _CACHED_MESSAGES or any(len(message) > 2 for message in messages):
            return self._apply(messages, generation_prompt, tools)
        return self._rendered(tuple((message["role"], message["content"]) for message in messages), generation_prompt)

    def _render_marked(self, turns: tuple[tuple[str, str], ...], generation_prompt: bool) -> str:
        return self._apply([{"role": role, "content": content} for role, content in turns], generation_prompt)

    def _apply(
        self,
        messages: Sequence[Message],
        generation_prompt: bool,
        tools: Sequence[Any] = (),
        as_text: bool | None = None,
    ) -> str:
        if any(len(message) > 2 for message in messages):
            messages = [self._as_template_reads(message, as_text) for message in messages]
        if self.template is None:
            return self._sandbox.render(messages, tools, generation_prompt)
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=self.jinja,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        except (
            *(jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError),
            *(RecursionError, MemoryError),
        ) as error:
            reason = " ".join(str(error).split())
            raise BadRow("template", f"the template refuses this conversation: {reason}") from None
        return rendered

    def _as_template_reads(self, message: Message, as_text: bool | None) -> Message:
        """A message with its fields under the names and in the form that the template expects."""
        given = {name: value for name, value in message.items() if name not in ("trained", "reasoning_content")}
        if "reasoning_content" in message:
            given |= dict.fromkeys(self._reasoning_fields, message["reasoning_content"])
        if "tool_calls" in message and (self._arguments_are_text if as_text is None else as_text):
            given["tool_calls"] = [_with_text_arguments(call) for call in message["tool_calls"]]
        return given

    def _with_place_for_reasoning(self, message: Message) -> Message:
        """The message, its reasoning between the tags of thoughts in its content where the template looks there."""
        if "reasoning_content" not in message or self._reasoning_fields:
            return message
        if "</think>" not in self.jinja:
            raise BadRow("unsupported_field", "`reasoning_content` of a message, which the template has no place for")
        content = f"<think>\n{message['reasoning_content'].strip()}\n</think>\n\n{message['content']}"
        return {name: value for name, value in message.items() if name != "reasoning_content"} | {"content": content}

    def _check_tools(self, messages: Sequence[Message], tools: Sequence[Any]) -> None:
        if tools and "tools" not in self.jinja:
            raise BadRow("unsupported_field", "a field `tools`, which the template has no place for")
        if any("tool_calls" in message for message in messages) and "tool_calls" not in self.jinja:
            raise BadRow("unsupported_field", "`tool_calls` of a message, which the template has no place for")


def _with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": text}}


def _without_empty_system(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message["content"] or message["role"] != "system"]
