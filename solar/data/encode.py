"""Text, conversations and pairs to token ids, with the tokens that are trained.

A conversation is rendered once with marks in place of its contents, so that the template and what people wrote
can be told apart: special tokens are special only in the former, and roles cannot be forged. It is then cut where each
answer begins and ends, and each cut is tokenised by itself, as it happens at inference.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import commonprefix
from typing import Any

import jinja2
import tokenizers

from solar.config.templates import TEMPLATE_TOKENS
from solar.data.formats import BadRow, Message, Pair
from solar.data.marks import behind_messages, fill, fitted, mark, marked, marks_in, thought_and_answer
from solar.data.templates import template_for

_GUARDS = ("\n", ".", "0", "x")
"""What stands before a text while it is tokenised by tokenizers that put a space before any text; then taken away."""


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
        self._backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()  # a tokenizer that was saved after training may still cut and pad
        self._backend.no_padding()
        self._normalizer = self._backend.normalizer
        structural = TEMPLATE_TOKENS.get(template or "", ())  # whatever the tokenizer's files call them
        added = tokenizer.added_tokens_decoder.items()
        self._special = {token.content: i for i, token in added if token.special or token.content in structural}
        alone = self._backend.encode("").ids
        self.bos_id: int | None = alone[0] if alone and alone[0] == tokenizer.bos_token_id else None
        """The token every sequence starts with; None if this tokenizer starts with none."""
        self._guards = [(text, ids) for text in _GUARDS if (ids := self._plain(text))]
        self._prepends = self._plain(".a") != [*self._plain("."), *self._plain("a")]

    @cached_property
    def jinja(self) -> str:
        """The chat template. Raises `DataError` if there is none that this tokenizer can use."""
        return template_for(self.tokenizer, self.template)

    @cached_property
    def _literal_backend(self) -> tokenizers.Tokenizer:
        """The same tokenizer, blind to special tokens."""
        described = json.loads(self._backend.to_str())
        model = described["model"]
        for token in described["added_tokens"]:
            token["special"] = token["content"] in self._special
        if model["type"] != "BPE" or model["ignore_merges"]:  # entries of its vocabulary are found in any text
            secret = secrets.token_hex(16)  # a name that no text can hold
            hidden = {token: f"\ue000{secret} {i}\ue001" for token, i in self._special.items()}
            if model["type"] == "Unigram":
                model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
            else:
                model["vocab"] = {hidden.get(piece, piece): i for piece, i in model["vocab"].items()}
                model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
            for token in described["added_tokens"]:
                token["content"] = hidden.get(token["content"], token["content"])
            described["post_processor"] = None
        backend = tokenizers.Tokenizer.from_str(json.dumps(described))
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
        """Ids of a prompt, up to and including the words that ask the assistant to speak; cut as in training."""
        marked_messages, text, contents = self._render(messages, generation_prompt=True)
        answers = _answers(marked_messages)
        pieces, done = self._cut_at(answers, marked_messages, text, contents)
        pieces = _started([*pieces, *self._split(text[done:], contents, False)])
        return self._join(pieces, self._batch(pieces)).ids

    def end_of_turn_ids(self) -> list[int]:
        """Tokens at which generation stops: EOS, and the special token the template puts after an answer."""
        turn = self._apply([{"role": "user", "content": mark(0)}, {"role": "assistant", "content": mark(1)}], False)
        closing = self._closing(turn[turn.rindex(mark(1)) + len(mark(1)) :])
        return [self.eos_id, *(i for token, i in self._special.items() if closing == token and i != self.eos_id)]

    def cut(self, messages: Sequence[Message], last_only: bool = False) -> list[Piece]:
        """A conversation, cut where each answer (`last_only`: the last one) begins and ends.

        What follows the last answer is left out.

        Raises `BadRow` if the template refuses or rewrites it.
        """
        marked_messages, text, contents = self._render(messages, generation_prompt=False)
        answers = _answers(marked_messages)
        if any(mark(place) not in text for place in (answers[-1:] if last_only else answers)):
            raise BadRow("template", "the template leaves an answer out, so it cannot be found")
        pieces, _ = self._cut_at(answers[-1:] if last_only else answers, marked_messages, text, contents)
        return _started(pieces)

    def _cut_at(
        self, answers: Sequence[int], messages: Sequence[Message], text: str, contents: Sequence[str]
    ) -> tuple[list[Piece], int]:
        """Pieces up to the end of the last of these answers, and where that is in the marked text."""
        pieces: list[Piece] = []
        done = 0
        for place in answers:
            begin = text.find(mark(place), done)
            if begin < 0:
                if mark(place) in text:
                    raise BadRow("template", "the template puts an answer elsewhere, so it cannot be found")
                continue
            end = begin + len(mark(place))
            if place:
                asked = self._apply(messages[:place], generation_prompt=True)
                last = behind_messages(text[:begin])
                words = asked[behind_messages(asked) :], text[last:begin]
                begin = last + len(commonprefix(words))  # noqa: RUF071 (character by character is meant)
            end += len(self._closing(text[end:]))
            pieces += [*self._split(text[done:begin], contents, False), *self._split(text[begin:end], contents, True)]
            done = end
        return pieces, done

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
        thoughts, answers = zip(*map(thought_and_answer, messages), strict=True)
        for marked_messages, contents in (
            (marked(messages), whole),
            (marked(messages, thoughts), [*answers, *reversed(thoughts)]),
        ):
            text = self._apply(marked_messages, generation_prompt)
            if (found := fitted(text, contents, real)) is None:
                continue
            if contents is not whole and thoughts[-1] and mark(-len(messages)) not in text:
                # the template expects the thoughts of the last answer from the model: it is put in as it was written
                marked_messages = marked(messages, [*thoughts[:-1], ""])
                text = self._apply(marked_messages, generation_prompt)
                found = [*answers[:-1], whole[-1].strip(), *reversed(thoughts)]
            return marked_messages, text, found
        raise BadRow("template", "the template rewrites what was written, so answers cannot be found in its output")

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

    def _split(self, text: str, contents: Sequence[str], trained: bool) -> Iterator[Piece]:
        """One piece if no content holds a special token; otherwise the template's special tokens by themselves."""
        if not any(self._holds_special(contents[place]) for place in marks_in(text)):
            if text:
                yield Piece(fill(text, contents), trained)
            return
        while text:
            found = [(text.find(token), -len(token), token) for token in self._special if token in text]
            at, _, token = min(found, default=(len(text), 0, ""))
            if at:
                yield Piece(fill(text[:at], contents), trained, literal=True)
            if token:
                yield Piece(token, trained)
            text = text[at + len(token) :]

    def _closing(self, tail: str) -> str:
        """What ends an answer in the words that follow it: a special token; white space may stand before EOS."""
        space = tail[: len(tail) - len(tail.lstrip())]
        eos = space + str(self.tokenizer.eos_token)
        return max((token for token in [*self._special, eos] if tail.startswith(token)), key=len, default="")

    def _holds_special(self, text: str) -> bool:
        if any(token in text for token in self._special):
            return True
        if self._normalizer is None or text.isascii():
            return False
        plain = self._normalizer.normalize_str(text)
        return any(token in plain for token in self._special)

    def _join(self, pieces: Sequence[Piece], encoded: Sequence[list[int]]) -> Tokens:
        ids = [i for part in encoded for i in part]
        trained = [piece.trained for piece, part in zip(pieces, encoded, strict=True) for _ in part]
        if trained[-1:] == [True] and not self._ends(pieces[-1], ids[-1]):
            ids, trained = [*ids, self.eos_id], [*trained, True]
        if self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids, trained = [self.bos_id, *ids], [False, *trained]
        return Tokens(ids, trained)

    def _ends(self, piece: Piece, last_id: int) -> bool:
        """Whether the template's own special token stands at the end; an unknown word may be one by its id, too."""
        written = any(piece.text.endswith(token) for token, i in self._special.items() if i == last_id)
        return written and not piece.literal

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _batch(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Ids of each piece; the tokenizer's own threads share the work."""
        results: list[list[int] | None] = [None] * len(pieces)
        for literal in (False, True):
            places = [place for place, piece in enumerate(pieces) if piece.literal is literal]
            backend = self._literal_backend if literal and places else self._backend
            guarded = [place for place in places if self._prepends and not pieces[place].first]
            for guard, ids in self._guards if guarded else ():  # one of them does not grow together with the text
                encodings = backend.encode_batch_fast(
                    [guard + pieces[place].text for place in guarded], add_special_tokens=False
                )
                for place, encoding in zip(guarded, encodings, strict=True):
                    results[place] = encoding.ids[len(ids) :] if encoding.ids[: len(ids)] == ids else None
                guarded = [place for place in guarded if results[place] is None]
            places = [place for place in places if results[place] is None]
            encodings = backend.encode_batch_fast([pieces[place].text for place in places], add_special_tokens=False)
            for place, encoding in zip(places, encodings, strict=True):
                results[place] = encoding.ids
        return [ids or [] for ids in results]


def _answers(messages: Sequence[Message]) -> list[int]:
    return [place for place, message in enumerate(messages) if message["role"] == "assistant"]


def _without_empty_system(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message["content"] or message["role"] != "system"]


def _started(pieces: Iterator[Piece] | list[Piece]) -> list[Piece]:
    first, *rest = pieces
    return [replace(first, first=True), *rest]


def prompt_ids(tokenizer: Any, messages: Sequence[Message], template: str | None = None) -> list[int]:
    """The ids a model must be given to answer `messages`: exactly what it saw before its answers in training."""
    return Encoder(tokenizer, template).prompt(messages)


def stop_ids(tokenizer: Any, template: str | None = None) -> list[int]:
    """Ids at which generation ends."""
    return Encoder(tokenizer, template).end_of_turn_ids()
