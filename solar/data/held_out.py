"""Held-out text as plain rows of tokens, for measures that know nothing of documents."""

from pathlib import Path

import numpy as np

from solar.data.store.dataset import TokenDataset
from solar.errors import DataError


def held_out_rows(folder: Path, tokens: int, sequence_length: int) -> np.ndarray:
    """The start of the `valid` split end to end, as int64 [rows, sequence_length].

    Raises:
        DataError: there is less than one row of it.
    """
    dataset, read, count = TokenDataset(folder, "valid"), [], 0
    for number in range(len(dataset)):
        read.append(dataset[number].input_ids)
        count += len(read[-1])
        if count >= tokens:
            break
    rows = min(tokens, count) // sequence_length
    if rows == 0:
        raise DataError(f"{folder}: {count} held-out tokens, expected at least one row of {sequence_length}")
    return np.concatenate(read)[: rows * sequence_length].reshape(rows, sequence_length)
