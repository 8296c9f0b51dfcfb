"""Held-out text as rows of tokens without borders of documents."""

from pathlib import Path

import numpy as np

from solar.data.store.dataset import TokenDataset
from solar.errors import DataError


def held_out_rows(folder: Path, tokens: int, sequence_length: int) -> np.ndarray:
    """The first `tokens` tokens of the `valid` split, end to end, as int64 [rows, sequence_length].

    Raises `DataError` if the split has less than `sequence_length` tokens.
    """
    dataset, parts, count = TokenDataset(folder, "valid"), [], 0
    for number in range(len(dataset)):
        parts.append(dataset[number].input_ids)
        count += len(parts[-1])
        if count >= tokens:
            break
    rows = min(tokens, count) // sequence_length
    if rows == 0:
        raise DataError(f"{folder}: {count} held-out tokens, expected at least one row of {sequence_length}")
    return np.concatenate(parts)[: rows * sequence_length].reshape(rows, sequence_length)
