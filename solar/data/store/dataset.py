"""A tokens artifact as a torch data set: one item is one packed row; a batch says where its documents lie.

Shapes: B rows, T tokens of the longest row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from solar.data.store.header import TokensHeader
from solar.data.store.tokens import PIECE, mapped, open_documents
from solar.errors import DataError

IGNORED = -100
"""Label of a token that is not predicted."""


@dataclass(frozen=True)
class Row:
    """One packed row."""

    input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    """The token itself where it is predicted, else -100; never the first token of a document."""
    document_lengths: list[int]
    sample_ids: list[int]
    """The sample each document belongs to."""


class TokenDataset(Dataset[Row]):
    """The rows of one split, read where they lie; its memory does not grow with the data."""

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
        """Tokens of each row, padding not counted."""
        self.row_trained_tokens = mapped(place / "row_trained.bin", "<u4", self.split.rows)
        """Labels of each row that are not -100."""
        self._documents_per_sample = 2 if self.header.task == "preference" else 1

    def __reduce__(self) -> tuple[type["TokenDataset"], tuple[Path, str]]:
        """A worker opens the files anew: a pickled memory map is a copy of the data."""
        return TokenDataset, self._opened

    def __len__(self) -> int:
        return self.split.rows

    @property
    def longest_document(self) -> int:
        """Tokens of the longest stretch of a document in a row: positions begin anew with each."""
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
        """A mean loss over the labels of this split as bits per byte of the text they stand for."""
        return nats_per_token / math.log(2) * self.split.answer_tokens / self.split.text_bytes


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, Any]:
    """Rows side by side, padded on the right to the longest.

    `input_ids`, `labels`, `position_ids` int64 [B, T]: positions start at 0 in every document, padding is a document of
    its own. `document_ids` int32 [B, T]: 0, 1, ... within the row, -1 on padding. `document_lengths`, `sample_ids`:
    lists a row. Give the model `position_ids`, `use_cache=False` and no attention mask, or documents see each other.
    """
    width = max(len(row.input_ids) for row in rows)
    input_ids = np.full((len(rows), width), pad_id, np.int64)
    labels = np.full((len(rows), width), IGNORED, np.int64)
    position_ids = np.empty((len(rows), width), np.int64)
    document_ids = np.full((len(rows), width), -1, np.int32)
    for place, row in enumerate(rows):
        used = len(row.input_ids)
        input_ids[place, :used] = row.input_ids
        labels[place, :used] = row.labels
        lengths = [*row.document_lengths, width - used]
        position_ids[place] = np.concatenate([np.arange(length) for length in lengths])
        document_ids[place, :used] = np.repeat(np.arange(len(row.document_lengths)), row.document_lengths)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(position_ids),
        "document_ids": torch.from_numpy(document_ids),
        "document_lengths": [row.document_lengths for row in rows],
        "sample_ids": [row.sample_ids for row in rows],
    }


def collate_pairs(rows: Sequence[Row], pad_id: int) -> dict[str, Any]:
    """Preference rows as 2 B rows of one document each: first every chosen answer, then every rejected one."""
    return collate([_document(row, side) for side in (0, 1) for row in rows], pad_id)


def _document(row: Row, number: int) -> Row:
    start = sum(row.document_lengths[:number])
    stop = start + row.document_lengths[number]
    return Row(row.input_ids[start:stop], row.labels[start:stop], [stop - start], [row.sample_ids[number]])
