"""Text, conversations and pairs to token ids, with the tokens that are trained.

A conversation is rendered once with marks in place of its contents, so that the template and what people wrote
can be told apart: special tokens are special only in the former, and roles cannot be forged. It is then cut where each
answer begins and ends, and each cut is tokenised by itself, as it happens at inference.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from os.path import commonprefix
from typing import Any

from solar.data.encode.placeholders import behind_messages, fill, mark, places
from solar.data.encode.render import Renderer
from solar.data.encode.special_tokens import SecretNames
from solar.data.read.formats import Pair
from solar.data.read.messages import BadRow, Message
from solar.errors import DataError

_GUARDS = ("\n", ".", "0", "x")
"""Stand for the words before a text, for tokenizers that put a space before any text."""
_BRACKETED = re.compile(r"<\S+>|\[\S+\]")
_THOUGHTS = {"<think>", "</think>"}
_LONG, _RECENT = 64, 8
"""Messages of a conversation of which only the end is rendered, and how many of its messages the end has at least."""
_TURNS: list[Message] = [{"role": role, "content": mark(n)} for n, role in enumerate(("user", "assistant", "user"))]


@dataclass(frozen=True)
class Piece:
    """A stretch of text that is tokenised by itself."""

    text: str
    """The template's special tokens are in it by their secret names."""
    trained: bool
    behind: str | None = None
    """The special token (its secret name) before it, "" if it begins its sequence, None if other words are before it:
    a tokenizer may put a space before a text that begins anew, or take one away."""


@dataclass(frozen=True)
class Tokens:
    """A document or conversation as ids."""

    ids: list[int]
    trained: list[bool]


class Encoder:
    """Turns text into ids the same way for training and for inference."""

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        """`template` is a name of `solar.data.encode.templates`, or None for the tokenizer's own."""
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer, template)
        self.eos_id: int = tokenizer.eos_token_id
        added = {token.content: (i, token.special) for i, token in tokenizer.added_tokens_decoder.items()}
        roles = self._roles(added)  # special, whatever the tokenizer's files call them
        self._special = {content: i for content, (i, special) in added.items() if special or content in roles}
        self._secret = SecretNames(tokenizer.backend_tokenizer, self._special)
        alone = self._secret.backend.encode("").ids
        self.bos_id: int | None = alone[0] if alone and alone[0] == tokenizer.bos_token_id else None
        """The token every sequence starts with; None if this tokenizer starts with none."""
        probe = self._secret.backend.encode("a")
        marks = zip(probe.ids, probe.special_tokens_mask, strict=True)
        self._first_ids = [i for i, _ in takewhile(lambda token: token[1] == 1, marks)]
        """What the tokenizer's post-processor puts before a text; what the post-processor appends is never used."""
        dot, letter, both = self._encoded([".", "a", ".a"])
        words = zip(_GUARDS, self._encoded(_GUARDS), strict=True) if both != dot + letter else ()
        self._words = [(text, ids) for text, ids in words if ids and tokenizer.unk_token_id not in ids]

    def _roles(self, added: Iterable[str]) -> set[str]:
        """Tokens in brackets that the template itself writes, but for the tags of thoughts, which people write, too."""
        if self.renderer.template is None and self.tokenizer.chat_template is None:
            return set()
        with suppress(DataError):  # one that cannot be used is told where it is used
            written = self.renderer.marked(_TURNS, generation_prompt=True)
            return {token for token in added if token in written and _BRACKETED.fullmatch(token)} - _THOUGHTS
        return set()

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole documents: one BOS (if the tokenizer has that habit), the text, one EOS."""
        start = [] if self.bos_id is None else [self.bos_id]
        return [[*start, *ids, self.eos_id] for ids in self._encoded(texts)]

    def plain_text(self, text: str) -> list[int]:
        """Ids of a text by itself: nothing stands before or after the text."""
        return self._encoded([text])[0]

    def text_prompt(self, text: str) -> list[int]:
        """Ids of a text that a model is to continue: one BOS (if the tokenizer has that habit), the text, no EOS."""
        return [*self._first_ids, *self.plain_text(text)]

    def text_continuation(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context, and of a text that may follow the context.

        Both are encoded as a single text. Spaces between them belong to the continuation, and so does a token that
        spans the border. The context is never empty: BOS, EOS or token 0 stands for an empty context.
        """
        prompt = self.text_prompt(context.rstrip(" "))
        whole = self.text_prompt(context + continuation)
        border = len(commonprefix([prompt, whole]))  # noqa: RUF071 (token by token is meant)
        standing_in = (self.tokenizer.bos_token_id, self.eos_id, 0)
        first = next(i for i in standing_in if i is not None)
        return whole[:border] or [first], whole[border:]

    def conversations(self, cut: Sequence[Sequence[Piece]]) -> list[Tokens]:
        """Ids of conversations that `cut` has cut; the last answer ends with a token that says so."""
        encoded = iter(self._batch([piece for pieces in cut for piece in pieces]))
        return [self._join(pieces, [next(encoded) for _ in pieces]) for pieces in cut]

    def text_bytes(self, ids: Sequence[int]) -> int:
        """UTF-8 bytes of the text that ids stand for, special tokens left out."""
        return len(self._secret.backend.decode(list(ids), skip_special_tokens=True).encode())

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """Ids of a prompt, up to and including the words that ask the assistant to speak; cut as in training."""
        marked_messages, text, contents = self.renderer.render(messages, True, tools)
        answers = _answers(marked_messages)
        pieces, done = self._cut_at(answers, marked_messages, text, contents, tools)
        pieces = self._placed([*pieces, *self._piece(text[done:], contents, False)])
        return self._join(pieces, self._batch(pieces)).ids

    def end_of_turn_ids(self) -> list[int]:
        """Tokens at which generation stops: EOS, and the special token the template puts after an answer."""
        found = [self.eos_id]
        for said, ask in ((_TURNS[:2], False), (_TURNS, True)):
            with suppress(BadRow):  # a template may be for a single turn
                _, answer, tail = self.renderer.marked(said, ask).rpartition(mark(1))
                closing = self._closing(tail).strip() if answer else ""
                found += [i for token, i in self._special.items() if token.strip() == closing and i not in found]
        return found

    def cut(self, messages: Sequence[Message], last_only: bool = False, tools: Sequence[Any] = ()) -> list[Piece]:
        """A conversation, cut where each answer (`last_only`: the last one) begins and ends.

        An answer is an assistant's message with its calls of tools. What follows the last answer is left out. Raises
        `BadRow` if the template refuses, rewrites or leaves out what was written.
        """
        self._refuse_special_tokens(messages, tools)
        marked_messages, text, contents = self.renderer.render(messages, False, tools)
        answers = _answers(marked_messages)
        answers = answers[-1:] if last_only else answers
        results = [place for place, message in enumerate(marked_messages) if message["role"] == "tool"]
        present = places(text)
        for needed, name in ((answers, "an answer"), (results, "a tool's result")):
            if not {place for place in needed if marked_messages[place]["content"]} <= present:
                raise BadRow("template", f"the template leaves {name} out, so it cannot be found")
        pieces, _ = self._cut_at(answers, marked_messages, text, contents, tools)
        return self._placed(pieces)

    def _refuse_special_tokens(self, messages: Sequence[Message], tools: Sequence[Any]) -> None:
        """Calls and tools are rendered as they are, so their text must not be taken for the template's."""
        structured = [*tools, *(call for message in messages for call in message.get("tool_calls", ()))]
        named = [message.get("name", "") + message.get("tool_call_id", "") for message in messages if len(message) > 2]
        if structured or named:
            text = json.dumps([structured, named], ensure_ascii=False)
            if self._secret.first_inside(text) or re.search("[\ue000-\ue003]", text):
                raise BadRow("special_token", "tools or their calls hold the text of a special token")

    def _cut_at(
        self,
        answers: Sequence[int],
        messages: Sequence[Message],
        text: str,
        contents: Sequence[str],
        tools: Sequence[Any],
    ) -> tuple[list[Piece], int]:
        """Pieces up to the end of the last of these answers, and where that is in the marked text."""
        pieces: list[Piece] = []
        done = 0
        present = places(text)
        for place in answers:
            if "tool_calls" in messages[place]:
                begin, end = self._calling_turn(place, messages, text, done, tools)
            elif place in present:
                begin, end = self._answering_turn(place, messages, text, done, tools)
            else:
                continue
            trained = messages[place].get("trained", True)
            pieces += [
                *self._piece(text[done:begin], contents, False),
                *self._piece(text[begin:end], contents, trained),
            ]
            done = end
        return pieces, done

    def _answering_turn(
        self, place: int, messages: Sequence[Message], text: str, done: int, tools: Sequence[Any]
    ) -> tuple[int, int]:
        """Where in the marked text the words begin that the assistant writes in its turn, and where they end."""
        begin = text.find(mark(place), done)
        if begin < 0:
            raise BadRow("template", "the template puts an answer elsewhere, so it cannot be found")
        end = begin + len(mark(place))
        if place:
            asked = self._words_that_ask(messages[:place], tools)
            last = behind_messages(text, begin)
            begin = last + len(commonprefix([asked, text[last:begin]]))  # noqa: RUF071 (characters are meant)
        return begin, end + len(self._closing(text, end))

    def _words_that_ask(self, messages: Sequence[Message], tools: Sequence[Any]) -> str:
        """What the template writes behind the last message to ask for an answer.

        Of a long conversation only the end is rendered, or n messages would cost n renderings of up to n messages.
        """
        if len(messages) > _LONG and not tools:
            system = [message for message in messages[:1] if message["role"] == "system"]
            users = (place for place in range(len(messages) - _RECENT, 0, -1) if messages[place]["role"] == "user")
            with suppress(BadRow):  # a template that wants to see all
                asked = self.renderer.marked([*system, *messages[next(users, 1) :]], generation_prompt=True)
                return asked[behind_messages(asked) :]
        asked = self.renderer.marked(messages, True, tools)
        return asked[behind_messages(asked) :]

    def _calling_turn(
        self, place: int, messages: Sequence[Message], text: str, done: int, tools: Sequence[Any]
    ) -> tuple[int, int]:
        """The same for a turn with calls of tools, which may hold no mark: what it adds to the turns before it."""
        asked = self.renderer.marked(messages[:place], True, tools)
        whole = self.renderer.marked(messages[: place + 1], False, tools).rstrip()
        begin = len(commonprefix([asked, whole]))  # noqa: RUF071 (characters are meant)
        if not (done <= begin < len(whole) and text.startswith(whole)):
            raise BadRow("template", "the template writes the turns before a tool call in another way after it")
        return begin, len(whole)

    def cut_pair(self, pair: Pair) -> tuple[list[Piece], list[Piece]]:
        """Prompt and chosen, prompt and rejected: the pieces before the answers are the same in both."""
        chosen, rejected = (
            self.cut([*pair.prompt, {"role": "assistant", "content": answer}], last_only=True)
            for answer in (pair.chosen, pair.rejected)
        )
        if [piece for piece in chosen if not piece.trained] != [piece for piece in rejected if not piece.trained]:
            raise BadRow("different_prompts", "the template renders another prompt for each answer")
        return chosen, rejected

    def _piece(self, text: str, contents: Sequence[str], trained: bool) -> Iterator[Piece]:
        if text:
            yield Piece(fill(self._secret.given(text), contents), trained)

    def _closing(self, text: str, start: int = 0) -> str:
        """What ends an answer in the words from `start` on: a special token; white space may stand before it."""
        begin = start
        while begin < len(text) and text[begin].isspace():
            begin += 1
        token = self._secret.first(text, begin)
        return text[start:begin] + token if token else ""

    def _join(self, pieces: Sequence[Piece], encoded: Sequence[list[int]]) -> Tokens:
        ids = [i for part in encoded for i in part]
        trained = [piece.trained for piece, part in zip(pieces, encoded, strict=True) for _ in part]
        if trained[-1:] == [True] and self._secret.ids.get(self._secret.last(pieces[-1].text) or "") != ids[-1]:
            ids, trained = [*ids, self.eos_id], [*trained, True]
        if self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids, trained = [self.bos_id, *ids], [False, *trained]
        return Tokens(ids, trained)

    def _batch(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Ids of each piece as it stands; the tokenizer's own threads share the work."""
        results: list[list[int] | None] = [None] * len(pieces)
        guards = [self._guards(piece) for piece in pieces]
        while places := [place for place, found in enumerate(results) if found is None]:
            tried = [next(guards[place]) for place in places]
            texts = [guard + pieces[place].text for place, (guard, _) in zip(places, tried, strict=True)]
            for place, (_, ids), found in zip(places, tried, self._encoded(texts), strict=True):
                if found[: len(ids)] == ids:  # the guard did not grow together with the text
                    results[place] = found[len(ids) :]
        return [ids or [] for ids in results]

    def _guards(self, piece: Piece) -> Iterator[tuple[str, list[int]]]:
        """What may stand before a piece while it is tokenised, and its ids, which are then taken away."""
        if piece.behind:
            yield piece.behind, [self._secret.ids[piece.behind]]
        elif piece.behind is None:
            yield from self._words
        yield "", []

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self._secret.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _placed(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Pieces that know what they stand behind."""
        placed: list[Piece] = []
        before = ""
        for piece in pieces:
            placed.append(replace(piece, behind=self._secret.last(before) if before else ""))
            before = piece.text if piece.text.strip() else before + piece.text
        return placed


def _answers(messages: Sequence[Message]) -> list[int]:
    return [place for place, message in enumerate(messages) if message["role"] == "assistant"]


def prompt_ids(tokenizer: Any, messages: Sequence[Message], template: str | None = None) -> list[int]:
    """The ids a model must be given to answer `messages`: exactly what it saw before its answers in training."""
    return Encoder(tokenizer, template).prompt(messages)


def stop_ids(tokenizer: Any, template: str | None = None) -> list[int]:
    """Ids at which generation ends."""
    return Encoder(tokenizer, template).end_of_turn_ids()
