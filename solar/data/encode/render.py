"""Conversations to text through a chat template, as they are and with marks in place of their contents."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import jinja2

from solar.data.encode.placeholders import fitted, mark, thought_and_answer
from solar.data.encode.placeholders import marked as with_marks
from solar.data.encode.templates import template_for
from solar.data.read.formats import BadRow, Message


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

    def render(self, messages: Sequence[Message], generation_prompt: bool) -> tuple[list[Message], str, list[str]]:
        """Messages with marks for contents, the text that they render to, and the contents that belong there."""
        messages = _without_empty_system(messages)
        real = self._apply(messages, generation_prompt)
        whole = [message["content"] for message in messages]
        thoughts, answers = zip(*map(thought_and_answer, messages), strict=True)
        for marked_messages, contents in (
            (with_marks(messages), whole),
            (with_marks(messages, thoughts), [*answers, *reversed(thoughts)]),
        ):
            text = self.marked(marked_messages, generation_prompt)
            if (found := fitted(text, contents, real)) is None:
                continue
            if contents is not whole and thoughts[-1] and mark(-len(messages)) not in text:
                # the template expects the thoughts of the last answer from the model: it is put in as it was written
                marked_messages = with_marks(messages, [*thoughts[:-1], ""])
                text = self.marked(marked_messages, generation_prompt)
                found = [*answers[:-1], whole[-1].strip(), *reversed(thoughts)]
            return marked_messages, text, found
        raise BadRow("template", "the template rewrites what was written, so answers cannot be found in its output")

    def marked(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        return self._rendered(tuple((message["role"], message["content"]) for message in messages), generation_prompt)

    def _render_marked(self, turns: tuple[tuple[str, str], ...], generation_prompt: bool) -> str:
        return self._apply([{"role": role, "content": content} for role, content in turns], generation_prompt)

    def _apply(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.jinja,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            reason = " ".join(str(error).split())
            raise BadRow("template", f"the template refuses this conversation: {reason}") from None
        return rendered


def _without_empty_system(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message["content"] or message["role"] != "system"]
