"""Text, conversations and pairs to token ids, with the tokens that are trained.

A conversation is rendered with placeholders for its contents, so that the template's text is known apart from what
people wrote: special tokens are special only in the template's text, and no content can forge a role. The rendered text
is cut where each answer begins and ends, and each piece is tokenised by itself.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from os.path import commonprefix
from typing import Any

from solar.data.encode.cut import Cutter, Piece
from solar.data.encode.placeholders import mark
from solar.data.encode.render import Renderer
from solar.data.encode.special_tokens import SecretNames
from solar.data.read.formats import Pair
from solar.data.read.messages import BadRow, Message
from solar.errors import DataError

_GUARDS = ("\n", ".", "0", "x")
"""Texts to tokenise a piece behind, since some tokenizers add a space before the first word of any text."""
_BRACKETED = re.compile(r"<\S+>|\[\S+\]")
_THOUGHTS = {"<think>", "</think>"}
_TURNS: list[Message] = [{"role": role, "content": mark(n)} for n, role in enumerate(("user", "assistant", "user"))]


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
        roles = self._roles(added)  # special tokens, even if the tokenizer's files do not mark them as special
        self._special = {content: i for content, (i, special) in added.items() if special or content in roles}
        self._secret = SecretNames(tokenizer.backend_tokenizer, self._special)
        self._cutter = Cutter(self.renderer, self._secret)
        alone = self._secret.backend.encode("").ids
        self.bos_id: int | None = alone[0] if alone and alone[0] == tokenizer.bos_token_id else None
        """The token that every sequence starts with; None if the tokenizer adds no such token."""
        probe = self._secret.backend.encode("a")
        marks = zip(probe.ids, probe.special_tokens_mask, strict=True)
        self._first_ids = [i for i, _ in takewhile(lambda token: token[1] == 1, marks)]
        """What the tokenizer's post-processor puts before a text; what the post-processor appends is never used."""
        dot, letter, both = self._encoded([".", "a", ".a"])
        words = zip(_GUARDS, self._encoded(_GUARDS), strict=True) if both != dot + letter else ()
        self._words = [(text, ids) for text, ids in words if ids and tokenizer.unk_token_id not in ids]

    def _roles(self, added: Iterable[str]) -> set[str]:
        """Tokens in brackets that the template writes, except the tags of thoughts, which people write, too."""
        if self.renderer.template is None and self.tokenizer.chat_template is None:
            return set()
        with suppress(DataError):  # an unusable template is reported when a conversation is rendered
            written = self.renderer.marked(_TURNS, generation_prompt=True)
            return {token for token in added if token in written and _BRACKETED.fullmatch(token)} - _THOUGHTS
        return set()

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole documents: BOS (if the tokenizer begins sequences with it), the text, EOS."""
        start = [] if self.bos_id is None else [self.bos_id]
        return [[*start, *ids, self.eos_id] for ids in self._encoded(texts)]

    def plain_text(self, text: str) -> list[int]:
        """Ids of a text, without tokens before or after the text."""
        return self._encoded([text])[0]

    def text_prompt(self, text: str) -> list[int]:
        """Ids of a text that a model is to continue: what the tokenizer puts before a text, the text, and no EOS."""
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
        """Ids of conversations that `cut` has cut. EOS follows the last answer, unless a special token closes it."""
        encoded = iter(self._batch([piece for pieces in cut for piece in pieces]))
        return [self._join(pieces, [next(encoded) for _ in pieces]) for pieces in cut]

    def text_bytes(self, ids: Sequence[int]) -> int:
        """UTF-8 bytes of the text of `ids`, without special tokens."""
        return len(self._secret.backend.decode(list(ids), skip_special_tokens=True).encode())

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """Ids of a prompt, including the words that ask the assistant for an answer; cut as in training."""
        pieces = self._cutter.prompt(messages, tools)
        return self._join(pieces, self._batch(pieces)).ids

    def end_of_turn_ids(self) -> list[int]:
        """Tokens at which generation stops: EOS, and the special token that the template puts after an answer."""
        ids = [self.eos_id]
        for messages, ask in ((_TURNS[:2], False), (_TURNS, True)):
            with suppress(BadRow):  # some templates refuse more than one turn
                _, answer, tail = self.renderer.marked(messages, ask).rpartition(mark(1))
                closing = self._cutter.closing(tail).strip() if answer else ""
                ids += [i for token, i in self._special.items() if token.strip() == closing and i not in ids]
        return ids

    def cut(self, messages: Sequence[Message], last_only: bool = False, tools: Sequence[Any] = ()) -> list[Piece]:
        """A conversation, cut where each answer (`last_only`: the last answer) begins and ends, up to the last end.

        An answer is a message of the assistant with its calls of tools. Raises `BadRow` if the template refuses,
        rewrites or leaves out a message.
        """
        return self._cutter.conversation(messages, last_only, tools)

    def cut_pair(self, pair: Pair) -> tuple[list[Piece], list[Piece]]:
        """The pieces of the prompt with the chosen answer, and with the rejected answer; their prompts are equal."""
        return self._cutter.pair(pair)

    def _join(self, pieces: Sequence[Piece], encoded: Sequence[list[int]]) -> Tokens:
        ids = [i for part in encoded for i in part]
        trained = [piece.trained for piece, part in zip(pieces, encoded, strict=True) for _ in part]
        if trained[-1:] == [True] and self._secret.ids.get(self._secret.last(pieces[-1].text) or "") != ids[-1]:
            ids, trained = [*ids, self.eos_id], [*trained, True]
        if self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids, trained = [self.bos_id, *ids], [False, *trained]
        return Tokens(ids, trained)

    def _batch(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Ids of each piece, tokenised behind a guard. The tokenizer's own threads share the work."""
        results: list[list[int] | None] = [None] * len(pieces)
        guards = [self._guards(piece) for piece in pieces]
        while missing := [place for place, ids in enumerate(results) if ids is None]:
            guards_now = [next(guards[place]) for place in missing]
            texts = [guard + pieces[place].text for place, (guard, _) in zip(missing, guards_now, strict=True)]
            for place, (_, guard_ids), ids in zip(missing, guards_now, self._encoded(texts), strict=True):
                if ids[: len(guard_ids)] == guard_ids:  # no token spans the border of guard and text
                    results[place] = ids[len(guard_ids) :]
        return [ids or [] for ids in results]

    def _guards(self, piece: Piece) -> Iterator[tuple[str, list[int]]]:
        """Guards to try before a piece, each with its ids, which are removed from the result."""
        if piece.behind:
            yield piece.behind, [self._secret.ids[piece.behind]]
        elif piece.behind is None:
            yield from self._words
        yield "", []

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._secret.backend.encode_batch_fast(texts, add_special_tokens=False)]
