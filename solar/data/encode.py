"""Text, conversations and pairs to token ids, with the tokens that are trained.

A conversation is rendered once with marks in place of its contents, so that the template and what people wrote
can be told apart: special tokens are special only in the former, and roles cannot be forged. It is then cut where each
answer begins and ends, and each cut is tokenised by itself, as it happens at inference.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import commonprefix
from typing import Any

import jinja2
import tokenizers

from solar.data.formats import BadRow, Message, Pair
from solar.data.templates import template_for


@dataclass(frozen=True)
class Piece:
    """A stretch of text that is tokenised by itself."""

    text: str
    trained: bool
    literal: bool = False
    """Special tokens in it are plain text."""
    first: bool = False
    """It begins its sequence: tokenizers that put a space before a text do so here and nowhere else."""


@dataclass(frozen=True)
class Tokens:
    """A document or conversation as ids."""

    ids: list[int]
    trained: list[bool]


class Encoder:
    """Turns text into ids the same way for training and for inference."""

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        """`template` is a name of `solar.data.templates`, or None for the tokenizer's own."""
        self.tokenizer = tokenizer
        self.template = template
        self.eos_id: int = tokenizer.eos_token_id
        self._backend: tokenizers.Tokenizer = tokenizer.backend_tokenizer
        self._special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        alone = self._backend.encode("").ids
        self.bos_id: int | None = alone[0] if alone and alone[0] == tokenizer.bos_token_id else None
        """The token every sequence starts with; None if this tokenizer starts with none."""
        self._guard = self._plain("\n")
        self._prepends = self._plain("\na") != [*self._guard, *self._plain("a")]

    @cached_property
    def jinja(self) -> str:
        """The chat template. Raises `DataError` if there is none that this tokenizer can use."""
        return template_for(self.tokenizer, self.template)

    @cached_property
    def _literal_backend(self) -> tokenizers.Tokenizer:
        """The same tokenizer, blind to special tokens."""
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole documents: one BOS (if the tokenizer has that habit), the text, one EOS."""
        start = [] if self.bos_id is None else [self.bos_id]
        encoded = self._batch([Piece(text, True, literal=self._holds_special(text), first=True) for text in texts])
        return [[*start, *ids, self.eos_id] for ids in encoded]

    def conversations(self, cut: Sequence[Sequence[Piece]]) -> list[Tokens]:
        """Ids of conversations that `cut` has cut; the last answer ends with a token that says so."""
        encoded = iter(self._batch([piece for pieces in cut for piece in pieces]))
        return [self._join(pieces, [next(encoded) for _ in pieces]) for pieces in cut]

    def text_bytes(self, ids: Sequence[int]) -> int:
        """UTF-8 bytes of the text that ids stand for, special tokens left out."""
        return len(self._backend.decode(list(ids), skip_special_tokens=True).encode())

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a prompt, up to and including the words that ask the assistant to speak."""
        _, text, contents = self._render(messages, generation_prompt=True)
        return self._join(pieces := _started(self._split(text, contents, False)), self._batch(pieces)).ids

    def end_of_turn_ids(self) -> list[int]:
        """Tokens at which generation stops: EOS, and the special token the template puts after an answer."""
        turn = self._apply([{"role": "user", "content": _mark(0)}, {"role": "assistant", "content": _mark(1)}], False)
        closing = self._closing(turn[turn.rindex(_mark(1)) + len(_mark(1)) :])
        return [self.eos_id, *(i for token, i in self._special.items() if closing == token and i != self.eos_id)]

    def cut(self, messages: Sequence[Message], last_only: bool = False) -> list[Piece]:
        """A conversation, cut where each answer (`last_only`: the last one) begins and ends.

        What follows the last answer is left out.

        Raises `BadRow` if the template refuses or rewrites it.
        """
        messages = _without_empty_system(messages)
        marked, text, contents = self._render(messages, generation_prompt=False)
        pieces: list[Piece] = []
        done = 0
        answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        for place in answers[-1:] if last_only else answers:
            begin = text.find(_mark(place), done)
            if begin < 0:
                raise BadRow(
                    "template", "the template leaves an answer out or puts it elsewhere, so it cannot be found"
                )
            end = begin + len(_mark(place))
            if place:
                asked = self._apply(marked[:place], generation_prompt=True)
                begin = min(begin, len(commonprefix([asked, text])))  # noqa: RUF071 (character by character is meant)
            end += len(self._closing(text[end:]))
            pieces += [*self._split(text[done:begin], contents, False), *self._split(text[begin:end], contents, True)]
            done = end
        return _started(pieces)

    def cut_pair(self, pair: Pair) -> tuple[list[Piece], list[Piece]]:
        """Prompt and chosen, prompt and rejected: the pieces before the answers are the same in both."""
        chosen, rejected = (
            self.cut([*pair.prompt, {"role": "assistant", "content": answer}], last_only=True)
            for answer in (pair.chosen, pair.rejected)
        )
        if [piece for piece in chosen if not piece.trained] != [piece for piece in rejected if not piece.trained]:
            raise BadRow("different_prompts", "the template renders another prompt for each answer")
        return chosen, rejected

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> tuple[list[Message], str, list[str]]:
        """Messages with marks for contents, the text that they render to, and the contents that belong there."""
        messages = _without_empty_system(messages)
        real = self._apply(messages, generation_prompt)
        whole = [message["content"] for message in messages]
        thoughts, answers = zip(*map(_thought_and_answer, messages), strict=True)
        for marked, contents in (
            (_marked(messages), whole),
            (_marked(messages), [content.strip() for content in whole]),
            (_marked(messages, thoughts), [*answers, *reversed(thoughts)]),
        ):
            text = self._apply(marked, generation_prompt)
            if _fill(text, contents) != real:
                continue
            if contents is not whole and thoughts[-1] and _mark(-len(messages)) not in text:
                # the template expects the thoughts of the last answer from the model: it is put in as it was written
                marked = _marked(messages, [*thoughts[:-1], ""])
                text = self._apply(marked, generation_prompt)
                contents = [*answers[:-1], whole[-1].strip(), *reversed(thoughts)]
            return marked, text, contents
        raise BadRow("template", "the template rewrites what was written, so answers cannot be found in its output")

    def _apply(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.jinja,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        except jinja2.TemplateError as error:
            raise BadRow("template", f"the template refuses this conversation: {error}") from None
        return rendered

    def _split(self, marked: str, contents: Sequence[str], trained: bool) -> Iterator[Piece]:
        """One piece if no content holds a special token; otherwise the template's special tokens by themselves."""
        held = (contents[int(place)] for place in re.findall("\ue000(-?\\d+)\ue001", marked))
        if not any(map(self._holds_special, held)):
            if marked:
                yield Piece(_fill(marked, contents), trained)
            return
        while marked:
            found = [(marked.find(token), -len(token), token) for token in self._special if token in marked]
            at, _, token = min(found, default=(len(marked), 0, ""))
            if at:
                yield Piece(_fill(marked[:at], contents), trained, literal=True)
            if token:
                yield Piece(token, trained)
            marked = marked[at + len(token) :]

    def _closing(self, tail: str) -> str:
        """What ends an answer in the words that follow it: a special token; white space may stand before EOS."""
        space = tail[: len(tail) - len(tail.lstrip())]
        eos = space + str(self.tokenizer.eos_token)
        return max((token for token in [*self._special, eos] if tail.startswith(token)), key=len, default="")

    def _holds_special(self, text: str) -> bool:
        return any(token in text for token in self._special)

    def _join(self, pieces: Sequence[Piece], encoded: Sequence[list[int]]) -> Tokens:
        ids = [i for part in encoded for i in part]
        trained = [piece.trained for piece, part in zip(pieces, encoded, strict=True) for _ in part]
        if trained[-1:] == [True] and ids[-1] not in self._special.values():
            ids, trained = [*ids, self.eos_id], [*trained, True]
        if self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids, trained = [self.bos_id, *ids], [False, *trained]
        return Tokens(ids, trained)

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _batch(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Ids of each piece; the tokenizer's own threads share the work."""
        results: list[list[int]] = [[]] * len(pieces)
        for literal in (False, True):
            places = [place for place, piece in enumerate(pieces) if piece.literal is literal]
            if not places:
                continue
            guarded = [self._prepends and not pieces[place].first for place in places]
            texts = ["\n" * guard + pieces[place].text for place, guard in zip(places, guarded, strict=True)]
            backend = self._literal_backend if literal else self._backend
            encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
            for place, guard, encoding in zip(places, guarded, encodings, strict=True):
                results[place] = encoding.ids[len(self._guard) :] if guard else encoding.ids
        return results


def _without_empty_system(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message["content"] or message["role"] != "system"]


def _started(pieces: Iterator[Piece] | list[Piece]) -> list[Piece]:
    first, *rest = pieces
    return [replace(first, first=True), *rest]


def _thought_and_answer(message: Message) -> tuple[str, str]:
    """What an assistant thinks between `<think>` and `</think>`, and what it says after that; the rest has no thought.

    >>> _thought_and_answer({"role": "assistant", "content": "<think>\\nHm.\\n</think>\\n\\nYes."})
    ('Hm.', 'Yes.')
    """
    thought, end, answer = message["content"].partition("</think>")
    if message["role"] != "assistant" or not end:
        return "", message["content"].strip()
    return thought.rpartition("<think>")[2].strip(), answer.strip()


def _marked(messages: Sequence[Message], thoughts: Sequence[str] = ()) -> list[Message]:
    """Messages with a mark for each content, and one counted from the end for each thought."""
    marked: list[Message] = [{**message, "content": _mark(place)} for place, message in enumerate(messages)]
    for place, thought in enumerate(thoughts):
        if thought:
            before, _, after = messages[place]["content"].partition("</think>")
            before = before.rpartition("<think>")[2]
            said = (_in_place(before, _mark(-1 - place)), _in_place(after, _mark(place)))
            marked[place]["content"] = "<think>{}</think>{}".format(*said)
    return marked


def _in_place(text: str, mark: str) -> str:
    """A mark between the white space that a text stands between."""
    return text.replace(text.strip(), mark) if text.strip() else text + mark


def _mark(place: int) -> str:
    """Stands for the content of a message while a template is rendered: private characters, no white space."""
    return f"\ue000{place}\ue001"


def _fill(marked: str, contents: Sequence[str]) -> str:
    """Contents back in place of their marks, each looked up once so that a content cannot hold a mark."""
    parts = marked.split("\ue000")
    filled = [parts[0]]
    for part in parts[1:]:
        place, _, rest = part.partition("\ue001")
        filled += [contents[int(place)], rest]
    return "".join(filled)


def prompt_ids(tokenizer: Any, messages: Sequence[Message], template: str | None = None) -> list[int]:
    """The ids a model must be given to answer `messages`: exactly what it saw before its answers in training."""
    return Encoder(tokenizer, template).prompt(messages)


def stop_ids(tokenizer: Any, template: str | None = None) -> list[int]:
    """Ids at which generation ends."""
    return Encoder(tokenizer, template).end_of_turn_ids()
