"""A tokens artifact as a torch data set, whose items are packed rows."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from solar.data.store.header import TokensHeader
from solar.data.store.tokens import PIECE, mapped, open_documents
from solar.errors import DataError

IGNORED = -100
"""Label of a token that is no target."""


@dataclass(frozen=True)
class Row:
    """One packed row."""

    input_ids: npt.NDArray[np.int64]
    """[tokens]: all documents end to end, without padding."""
    labels: npt.NDArray[np.int64]
    """[tokens]: the token itself where it is a target, else -100. The first token of a document is never a target."""
    document_lengths: list[int]
    sample_ids: list[int]
    """For each document, the number of its sample."""


class TokenDataset(Dataset[Row]):
    """The rows of one split, read from memory-mapped files, so that memory does not grow with the data."""

    def __init__(self, folder: Path | str, split: str) -> None:
        """Raises `DataError` if the folder holds no such split, or damaged files."""
        folder = Path(folder)
        self._opened = folder, split
        self.header = TokensHeader.read(folder)
        if split not in self.header.splits:
            raise DataError(f"{folder}: no split {split!r}, found {', '.join(self.header.splits)}")
        self.split = self.header.splits[split]
        place = folder / split
        self.documents = open_documents(place, self.header.dtype, self.split)
        self._pieces = mapped(place / "pieces.bin", PIECE, self.split.pieces)
        self._rows = mapped(place / "rows.bin", "<i8", self.split.rows + 1)
        self.row_tokens = mapped(place / "row_tokens.bin", "<u4", self.split.rows)
        """[rows]: tokens of each row, without padding."""
        self.row_trained_tokens = mapped(place / "row_trained.bin", "<u4", self.split.rows)
        """[rows]: labels of each row that are not -100."""
        self._documents_per_sample = 2 if self.header.task == "preference" else 1

    def __reduce__(self) -> tuple[type["TokenDataset"], tuple[Path, str]]:
        """A worker process opens the files itself: a pickled memory map would be a copy of the data."""
        return TokenDataset, self._opened

    def __len__(self) -> int:
        return self.split.rows

    @property
    def longest_document(self) -> int:
        """Tokens of the longest piece of a document in a row. Positions start at 0 in each piece."""
        return int(self._pieces["length"].max(initial=0))

    def __getitem__(self, number: int) -> Row:
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        ids, labels, lengths, samples = [], [], [], []
        for document, start, length in self._pieces[self._rows[number] : self._rows[number + 1]].tolist():
            piece = self.documents.read(document, start, length).astype(np.int64)
            trained = self.documents.trained(document, start, length)
            label = piece.copy() if trained is None else np.where(trained, piece, IGNORED)
            label[0] = IGNORED
            ids.append(piece)
            labels.append(label)
            lengths.append(length)
            samples.append(document // self._documents_per_sample)
        return Row(np.concatenate(ids), np.concatenate(labels), lengths, samples)

    def bits_per_byte(self, nats_per_token: float) -> float:
        """Convert the mean loss over this split's targets to bits per UTF-8 byte of the text that is predicted."""
        return nats_per_token / math.log(2) * self.split.answer_tokens / self.split.text_bytes
