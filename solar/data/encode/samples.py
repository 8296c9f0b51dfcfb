"""What one row becomes for each task: a document, a conversation or a pair, cut to the length of a row."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solar.config.data import Packing, Task
from solar.data.encode.encode import Encoder, Piece, Tokens
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow, Message, Row

Document = tuple[list[int], list[bool] | None]
"""Ids, and which of them are trained (None: all)."""


@dataclass(frozen=True)
class Sample:
    """A sample as it is written."""

    split: str
    documents: list[Document]
    answer_tokens: int
    """Tokens that can be predicted: trained, and not the first."""
    text_bytes: int
    """UTF-8 bytes of the text these tokens stand for."""


@dataclass(frozen=True)
class Parsed:
    """A row that was read but not yet tokenised."""

    content: Any
    """What `Sampler.encode` needs."""
    asked: str
    """The text whose hash decides the split: of a conversation or pair, all before the last answer."""
    said: str
    """The whole text, as duplicates and evaluation sets are compared with it."""


@dataclass
class Lengths:
    """Tokens of one part of the samples, before anything is cut."""

    samples: int = 0
    total: int = 0
    longest: int = 0

    def add(self, length: int) -> None:
        """Count one sample."""
        self.samples += 1
        self.total += length
        self.longest = max(self.longest, length)

    def facts(self) -> dict[str, float]:
        """Mean and maximum."""
        return {"mean": self.total / max(1, self.samples), "max": self.longest}


class Sampler(ABC):
    """Rows to samples, for one task."""

    documents_per_sample = 1
    harmless = frozenset({"no_answer"})
    """Reasons for which a sound row is of no use: dropped and counted, never an error."""

    def __init__(self, encoder: Encoder, sequence_length: int) -> None:
        self.encoder = encoder
        self.sequence_length = sequence_length
        self.truncated = 0
        """Samples that were cut, of those that are kept."""
        self.lengths: dict[str, Lengths] = {}
        """Parts of the samples, and how many tokens they have."""

    def _measure(self, **lengths: int) -> None:
        for part, length in lengths.items():
            self.lengths.setdefault(part, Lengths()).add(length)

    @abstractmethod
    def read(self, reader: Reader, row: Row) -> Parsed:
        """Read a row by its format. Raises `BadRow`."""

    @abstractmethod
    def encode(self, places: Sequence[str], splits: Sequence[str], samples: Sequence[Any]) -> list[Sample | BadRow]:
        """Tokenise many at once. A sample of which nothing is left to train comes back as a `BadRow`."""


class Pretraining(Sampler):
    """Documents; every token is trained."""

    def __init__(self, encoder: Encoder, sequence_length: int, packing: Packing) -> None:
        super().__init__(encoder, sequence_length)
        self._cut = packing is Packing.none

    def read(self, reader: Reader, row: Row) -> Parsed:
        text = reader.document(row)
        return Parsed(text, text, text)

    def encode(self, places: Sequence[str], splits: Sequence[str], samples: Sequence[str]) -> list[Sample | BadRow]:
        found: list[Sample | BadRow] = []
        for split, text, ids in zip(splits, samples, self.encoder.documents(samples), strict=True):
            size = len(text.encode())
            self._measure(document=len(ids))
            if self._cut and len(ids) > self.sequence_length:
                self.truncated += 1
                ids = ids[: self.sequence_length]
                size = self.encoder.text_bytes(ids)
            found.append(Sample(split, [(ids, None)], len(ids) - 1, size))
        return found


class Instruction(Sampler):
    """Conversations; the assistant's tokens are trained."""

    def read(self, reader: Reader, row: Row) -> Parsed:
        messages, tools = reader.conversation(row), reader.tools(row)
        if not any(message["role"] == "assistant" and message.get("trained", True) for message in messages):
            raise BadRow("no_answer", "no message of the assistant in it is trained")
        said = [_said(message) for message in messages]
        last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
        return Parsed(self.encoder.cut(messages, tools=tools), "\n\n".join(said[:last]), "\n\n".join(said))

    def encode(
        self, places: Sequence[str], splits: Sequence[str], samples: Sequence[list[Piece]]
    ) -> list[Sample | BadRow]:
        found: list[Sample | BadRow] = []
        for where, split, tokens in zip(places, splits, self.encoder.conversations(samples), strict=True):
            self._measure(conversation=len(tokens.ids), answers=sum(tokens.trained))
            long = len(tokens.ids) > self.sequence_length
            if long:
                tokens = Tokens(tokens.ids[: self.sequence_length], tokens.trained[: self.sequence_length])
            if not any(tokens.trained[1:]):
                found.append(BadRow("no_trained_token", where))
            else:
                self.truncated += long
                found.append(_masked(self.encoder, split, [tokens]))
        return found


class Preference(Sampler):
    """Two answers to one prompt; their tokens are trained.

    Too long for a row: the prompt loses its start, down to half a row; then both answers are cut alike. A pair of which
    only one answer would be cut is dropped, or its end would give the other side away.
    """

    documents_per_sample = 2
    harmless = frozenset({"identical_sides", "empty"})

    def read(self, reader: Reader, row: Row) -> Parsed:
        pair = reader.pair(row)
        asked = "\n\n".join(message["content"] for message in pair.prompt)
        return Parsed(self.encoder.cut_pair(pair), asked, f"{asked}\n\n{pair.chosen}\n\n{pair.rejected}")

    def encode(
        self, places: Sequence[str], splits: Sequence[str], samples: Sequence[tuple[list[Piece], list[Piece]]]
    ) -> list[Sample | BadRow]:
        sides = self.encoder.conversations([side for sample in samples for side in sample])
        found: list[Sample | BadRow] = []
        for where, split, chosen, rejected in zip(places, splits, sides[::2], sides[1::2], strict=True):
            cut = self._cut(chosen, rejected)
            if cut is None:
                found.append(BadRow("one_answer_too_long", where))
            elif cut[0].ids == cut[1].ids:
                found.append(BadRow("identical_sides", where))
            else:
                self.truncated += cut[0] is not chosen
                found.append(_masked(self.encoder, split, list(cut)))
        return found

    def _cut(self, chosen: Tokens, rejected: Tokens) -> tuple[Tokens, Tokens] | None:
        prompt = chosen.trained.index(True)
        answers = [len(side.ids) - prompt for side in (chosen, rejected)]
        self._measure(prompt=prompt, chosen=answers[0], rejected=answers[1])
        if prompt + max(answers) <= self.sequence_length:
            return chosen, rejected
        kept = min(prompt, max(self.sequence_length - max(answers), self.sequence_length // 2))
        room = self.sequence_length - kept
        if (answers[0] > room) != (answers[1] > room):
            return None
        return self._shorten(chosen, prompt, kept, room), self._shorten(rejected, prompt, kept, room)

    def _shorten(self, side: Tokens, prompt: int, kept: int, room: int) -> Tokens:
        """The last `kept` tokens of the prompt (a BOS stays in front) and the first `room` of the answer."""
        bos_id = self.encoder.tokenizer.bos_token_id  # also where only the template writes it
        start = side.ids[:1] if side.ids[:1] == [bos_id] else []
        ids = [*start, *side.ids[prompt - kept + len(start) : prompt + room]]
        return Tokens(ids, [False] * kept + side.trained[prompt : prompt + room])


def _said(message: Message) -> str:
    """What a message says, in words or in calls of tools."""
    calls = message.get("tool_calls")
    return f"{message['content']}\n{json.dumps(calls, ensure_ascii=False)}" if calls else str(message["content"])


def _masked(encoder: Encoder, split: str, sides: list[Tokens]) -> Sample:
    answers = [[i for i, trained in zip(side.ids, side.trained, strict=True) if trained] for side in sides]
    return Sample(
        split,
        [(side.ids, side.trained) for side in sides],
        sum(sum(side.trained[1:]) for side in sides),
        sum(map(encoder.text_bytes, answers)),
    )


def sampler_for(task: Task, encoder: Encoder, sequence_length: int, packing: Packing) -> Sampler:
    """The sampler of a task."""
    if task is Task.pretrain:
        return Pretraining(encoder, sequence_length, packing)
    return (Instruction if task is Task.instruct else Preference)(encoder, sequence_length)
