"""Conversations to pieces: the rendered text is cut where each answer begins and ends.

A piece is tokenised by itself, so that its ids are those of inference, where the model writes from the cut on.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Any

from solar.data.encode.placeholders import behind_messages, fill, mark, places
from solar.data.encode.render import Renderer
from solar.data.encode.special_tokens import SecretNames
from solar.data.read.formats import Pair
from solar.data.read.messages import BadRow, Message

_LONG, _RECENT = 64, 8
"""Of a conversation with more than 64 messages only the end is rendered again: at least 8 messages."""


@dataclass(frozen=True)
class Piece:
    """Text that is tokenised by itself."""

    text: str
    """Special tokens of the template stand in the text under their secret names."""
    trained: bool
    behind: str | None = None
    """The secret name of the special token before the piece; "" at the beginning of a sequence, None after words.

    A tokenizer may add or remove a space at the beginning of a text."""


@dataclass(frozen=True)
class _Rendered:
    """A conversation as its template writes it, with marks for contents."""

    messages: Sequence[Message]
    text: str
    contents: Sequence[str]
    """The contents that the marks stand for."""
    tools: Sequence[Any]


class Cutter:
    """Cuts the conversations of one template."""

    def __init__(self, renderer: Renderer, secret: SecretNames) -> None:
        self._renderer = renderer
        self._secret = secret

    def conversation(self, messages: Sequence[Message], last_only: bool, tools: Sequence[Any]) -> list[Piece]:
        """The pieces up to the end of the last answer; `last_only`: only the last answer is cut out and trained.

        Raises `BadRow` if the template refuses the conversation, or leaves an answer or a tool's result out.
        """
        self._refuse_special_tokens(messages, tools)
        rendered = _Rendered(*self._renderer.render(messages, False, tools), tools)
        answers = _answers(rendered.messages)
        answers = answers[-1:] if last_only else answers
        results = [place for place, message in enumerate(rendered.messages) if message["role"] == "tool"]
        present = places(rendered.text)
        for needed, name in ((answers, "an answer"), (results, "a tool's result")):
            if not {place for place in needed if rendered.messages[place]["content"]} <= present:
                raise BadRow("template", f"the template leaves {name} out, so it cannot be found")
        pieces, _ = self._cut_at(answers, rendered)
        return self._placed(pieces)

    def pair(self, pair: Pair) -> tuple[list[Piece], list[Piece]]:
        """The prompt with the chosen answer, and with the rejected answer. Raises `BadRow` for different prompts."""
        chosen, rejected = (
            self.conversation([*pair.prompt, {"role": "assistant", "content": answer}], True, ())
            for answer in (pair.chosen, pair.rejected)
        )
        if [piece for piece in chosen if not piece.trained] != [piece for piece in rejected if not piece.trained]:
            raise BadRow("different_prompts", "the template renders another prompt for each answer")
        return chosen, rejected

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any]) -> list[Piece]:
        """The pieces of a prompt, with the words that ask for an answer. Earlier answers are cut as in training."""
        rendered = _Rendered(*self._renderer.render(messages, True, tools), tools)
        pieces, end = self._cut_at(_answers(rendered.messages), rendered)
        return self._placed([*pieces, *self._piece(rendered.text[end:], rendered.contents, False)])

    def closing(self, text: str, start: int = 0) -> str:
        """The special token at `start` that closes an answer, with the white space before it; "" where words follow."""
        begin = start
        while begin < len(text) and text[begin].isspace():
            begin += 1
        token = self._secret.first(text, begin)
        return text[start:begin] + token if token else ""

    def _refuse_special_tokens(self, messages: Sequence[Message], tools: Sequence[Any]) -> None:
        """Tools and calls are rendered without placeholders: special tokens in them would pass for the template's."""
        structured = [*tools, *(call for message in messages for call in message.get("tool_calls", ()))]
        named = [message.get("name", "") + message.get("tool_call_id", "") for message in messages if len(message) > 2]
        if structured or named:
            text = json.dumps([structured, named], ensure_ascii=False)
            if self._secret.first_inside(text) or re.search("[\ue000-\ue003]", text):
                raise BadRow("special_token", "tools or their calls hold the text of a special token")

    def _cut_at(self, answers: Sequence[int], rendered: _Rendered) -> tuple[list[Piece], int]:
        """The pieces up to the end of the last of these answers, and where that end is in the rendered text."""
        pieces: list[Piece] = []
        done = 0
        present = places(rendered.text)
        for place in answers:
            if "tool_calls" in rendered.messages[place]:
                begin, end = self._calling_turn(place, rendered, done)
            elif place in present:
                begin, end = self._answering_turn(place, rendered, done)
            else:
                continue
            trained = rendered.messages[place].get("trained", True)
            pieces += self._piece(rendered.text[done:begin], rendered.contents, False)
            pieces += self._piece(rendered.text[begin:end], rendered.contents, trained)
            done = end
        return pieces, done

    def _answering_turn(self, place: int, rendered: _Rendered, done: int) -> tuple[int, int]:
        """Where, after `done`, the text that the assistant writes in its turn begins and ends."""
        text = rendered.text
        begin = text.find(mark(place), done)
        if begin < 0:
            raise BadRow("template", "the template puts an answer elsewhere, so it cannot be found")
        end = begin + len(mark(place))
        if place:
            request = self._request(rendered.messages[:place], rendered.tools)
            last = behind_messages(text, begin)
            begin = last + len(commonprefix([request, text[last:begin]]))  # noqa: RUF071 (characters are meant)
        return begin, end + len(self.closing(text, end))

    def _request(self, messages: Sequence[Message], tools: Sequence[Any]) -> str:
        """The words after the last message with which the template asks for an answer.

        Of a long conversation only the end is rendered, or n messages would cost n renderings of up to n messages.
        """
        with suppress(BadRow):  # a template that refuses part of a conversation
            if recent := _recent(messages):
                text = self._renderer.marked(recent, True, tools)
                return text[behind_messages(text) :]
        text = self._renderer.marked(messages, True, tools)
        return text[behind_messages(text) :]

    def _calling_turn(self, place: int, rendered: _Rendered, done: int) -> tuple[int, int]:
        """The same for a turn with calls of tools, which may have no mark: the text that the turn adds."""
        messages = rendered.messages[: place + 1]
        if (recent := _recent(messages)) and (turn := self._turn_of(recent, rendered, done)):
            return turn
        begin, whole = self._added_by_last(messages, rendered.tools)
        if not (done <= begin < len(whole) and rendered.text.startswith(whole)):
            raise BadRow("template", "the template writes the turns before a tool call in another way after it")
        return begin, len(whole)

    def _turn_of(self, recent: Sequence[Message], rendered: _Rendered, done: int) -> tuple[int, int] | None:
        """Begin and end of the last of these turns in the whole text, where the content before it shows its place."""
        try:
            begin, whole = self._added_by_last(recent, rendered.tools)
        except BadRow:
            return None
        contents = [message["content"] for message in recent[:-1] if message["content"] in whole]
        before = contents[-1] if contents else ""
        start, there = whole.find(before), rendered.text.find(before, done)
        if not before or there < 0 or not rendered.text.startswith(whole[start:], there):
            return None
        return (begin - start + there, len(whole) - start + there) if start <= begin < len(whole) else None

    def _added_by_last(self, messages: Sequence[Message], tools: Sequence[Any]) -> tuple[int, str]:
        """Where the text of the last message begins, and the text of all messages."""
        before = self._renderer.marked(messages[:-1], True, tools)
        whole = self._renderer.marked(messages, False, tools).rstrip()
        return len(commonprefix([before, whole])), whole  # noqa: RUF071 (characters are meant)

    def _piece(self, text: str, contents: Sequence[str], trained: bool) -> Iterator[Piece]:
        if text:
            yield Piece(fill(self._secret.given(text), contents), trained)

    def _placed(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces, each with the special token before it."""
        placed: list[Piece] = []
        before = ""
        for piece in pieces:
            placed.append(replace(piece, behind=self._secret.last(before) if before else ""))
            before = piece.text if piece.text.strip() else before + piece.text
        return placed


def _recent(messages: Sequence[Message]) -> list[Message]:
    """The system message and the last messages of a long conversation, from a user's on; [] for a short one."""
    if len(messages) <= _LONG:
        return []
    system = [message for message in messages[:1] if message["role"] == "system"]
    users = (place for place in range(len(messages) - _RECENT, 0, -1) if messages[place]["role"] == "user")
    return [*system, *messages[next(users, 1) :]]


def _answers(messages: Sequence[Message]) -> list[int]:
    return [place for place, message in enumerate(messages) if message["role"] == "assistant"]
