"""Which documents share a row: one each, end to end, or best fit. Computed from lengths; no token is moved."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from solar.data.order.permutation import Permutation
from solar.data.store.tokens import PIECE

Lengths = npt.NDArray[np.int64]
"""Tokens of each document."""
WINDOW = 2**18
"""Documents that are fitted together: bounds memory, and keeps the documents of a row close in the order."""


def one_each(lengths: Lengths, group: int = 1) -> Iterator[npt.NDArray[Any]]:
    """Rows of `group` whole documents, in order (two for preference pairs)."""
    for first in range(0, len(lengths), group):
        yield _pieces([(first + k, 0, int(lengths[first + k])) for k in range(group)])


def concatenate(lengths: Lengths, order: Permutation, sequence_length: int) -> Iterator[npt.NDArray[Any]]:
    """Rows of exactly `sequence_length` tokens (the last may be shorter): the documents end to end in `order`.

    >>> [row["length"].tolist() for row in concatenate(np.array([5, 5]), Permutation(2, "seed"), 4)]
    [[4], [1, 3], [2]]
    """
    row: list[tuple[int, int, int]] = []
    room = sequence_length
    for documents in _windows(order):
        for document, length in zip(documents.tolist(), lengths[documents].tolist(), strict=True):
            done = 0
            while done < length:
                taken = min(room, length - done)
                row.append((document, done, taken))
                done += taken
                room -= taken
                if room == 0:
                    yield _pieces(row)
                    row, room = [], sequence_length
    if row:
        yield _pieces(row)


def best_fit(lengths: Lengths, order: Permutation, sequence_length: int) -> Iterator[npt.NDArray[Any]]:
    """Rows of whole documents: the longest first, each into the fullest row with enough room (arXiv 2404.10830).

    A document longer than a row first fills whole rows; its rest is fitted like any other document.

    >>> rows = best_fit(np.array([3, 4, 2, 1, 4]), Permutation(5, "seed"), 6)
    >>> sorted(sorted(row["length"].tolist()) for row in rows)
    [[1, 4], [2, 4], [3]]
    """
    for documents in _windows(order):
        rests = []
        for document, length in zip(documents.tolist(), lengths[documents].tolist(), strict=True):
            for start in range(0, length - sequence_length + 1, sequence_length):
                yield _pieces([(document, start, sequence_length)])
            if rest := length % sequence_length:
                rests.append((document, length - rest, rest))
        yield from _best_fit(sorted(rests, key=lambda piece: -piece[2]), sequence_length)


def _best_fit(pieces: list[tuple[int, int, int]], sequence_length: int) -> Iterator[npt.NDArray[Any]]:
    rows: list[list[tuple[int, int, int]]] = []
    by_room: list[list[int]] = [[] for _ in range(sequence_length + 1)]
    rooms = 0  # bit k is set if some row has room for exactly k more tokens
    for piece in pieces:
        length = piece[2]
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = sequence_length, len(rows)
            rows.append([])
        rows[row].append(piece)
        by_room[room - length].append(row)
        rooms |= 1 << (room - length)
    yield from map(_pieces, rows)


def _windows(order: Permutation) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, order.size, WINDOW):
        yield order.take(start, min(WINDOW, order.size - start))


def _pieces(pieces: list[tuple[int, int, int]]) -> npt.NDArray[Any]:
    return np.array(pieces, PIECE)
