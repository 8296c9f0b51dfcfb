"""Samples: documents, conversations or pairs as ids, and what turns the rows of a source into samples."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solar.data.encode.encode import Encoder
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow, Row

Document = tuple[list[int], list[bool] | None]
"""Ids, and for each id whether it is trained (None: all are)."""


@dataclass(frozen=True)
class Sample:
    """A sample as it is stored."""

    split: str
    documents: list[Document]
    answer_tokens: int
    """Targets: trained tokens, except the first of a document."""
    text_bytes: int
    """UTF-8 bytes of the text that `answer_tokens` stand for."""


@dataclass(frozen=True)
class Parsed:
    """A row that was read and is not tokenised yet."""

    content: Any
    """What `Sampler.encode` takes for this row."""
    prompt: str
    """The text whose hash decides the split: in a conversation or pair, all messages before the last answer."""
    text: str
    """The whole text, which is compared with duplicates and evaluation sets."""


@dataclass
class Lengths:
    """Lengths, in tokens, of one part of the samples, before samples are cut."""

    samples: int = 0
    total: int = 0
    longest: int = 0

    def add(self, length: int) -> None:
        """Count one sample of `length` tokens."""
        self.samples += 1
        self.total += length
        self.longest = max(self.longest, length)

    def facts(self) -> dict[str, float]:
        """Mean and maximum of the lengths."""
        return {"mean": self.total / max(1, self.samples), "max": self.longest}


class Sampler(ABC):
    """Turns rows into samples, for one task."""

    documents_per_sample = 1
    harmless = frozenset({"no_answer"})
    """Reasons that leave a row out without an error."""

    def __init__(self, encoder: Encoder, sequence_length: int) -> None:
        self.encoder = encoder
        self.sequence_length = sequence_length
        self.truncated = 0
        """Samples that were cut to `sequence_length`."""
        self.lengths: dict[str, Lengths] = {}
        """Name of a part of the samples -> its lengths."""

    def measure(self, **lengths: int) -> None:
        """Count the lengths, in tokens, of the parts of one sample."""
        for part, length in lengths.items():
            self.lengths.setdefault(part, Lengths()).add(length)

    @abstractmethod
    def read(self, reader: Reader, row: Row) -> Parsed:
        """Read a row by its format. Raises `BadRow`."""

    @abstractmethod
    def encode(self, places: Sequence[str], splits: Sequence[str], samples: Sequence[Any]) -> list[Sample | BadRow]:
        """Tokenise many samples at once. A sample without a target becomes a `BadRow` at its place.

        `places`: `file:line` of each row, for messages.
        """
