"""A subset of the rows: the pairs of one step of stepwise DPO (arXiv 2403.19270)."""

import zlib
from bisect import bisect_left, bisect_right
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from solar.config.preference import DpoConfig, span_of
from solar.config.training import TrainConfig
from solar.data.store.dataset import TokenDataset
from solar.errors import DataError
from solar.network.microbatch import Ints
from solar.training.batches.steps import RowOrder


def chosen_rows(
    config: TrainConfig, data: TokenDataset, order: RowOrder, chunk_of_rows: Ints | None = None
) -> RowOrder:
    """The order of the rows that the configuration selects; the order itself, if it selects none.

    `chunk_of_rows`: the chunk of each row, from a `chunk_pairs` stage. Raises `DataError` if no row is left.
    """
    if not isinstance(config, DpoConfig) or not (config.sources or config.part or config.chunk):
        return order
    wanted = np.ones(len(data), np.bool_)
    if config.sources:
        wanted[:] = False
        known = data.split.sources
        for name in config.sources:
            if name not in known:
                raise DataError(f"sources: found {name}, expected one of {', '.join(known)}")
            wanted[known[name].start : known[name].stop] = True
    if config.part and (span := span_of(config.part)):
        wanted &= rows_of_part(len(data), *span)
    if config.chunk is not None and chunk_of_rows is not None:
        wanted &= chunk_of_rows == config.chunk
    if not wanted.any():
        selection = {key: value for key in ("sources", "part", "chunk") if (value := getattr(config, key))}
        raise DataError(f"{', '.join(selection)}: no pair of the data is in {selection}")
    return RowsOf(order, wanted)


def rows_of_part(count: int, start: float, stop: float) -> npt.NDArray[np.bool_]:
    """Which rows are in the part from share `start` to share `stop`: at random, but a function of `count` alone.

    >>> [int(rows_of_part(10, number / 3, (number + 1) / 3).sum()) for number in range(3)]
    [3, 4, 3]
    """
    shuffled = np.argsort([zlib.crc32(number.to_bytes(8, "little")) for number in range(count)], kind="stable")
    selected = np.zeros(count, np.bool_)
    selected[shuffled[round(start * count) : round(stop * count)]] = True
    return selected


_IDLE_EPOCHS = 100
"""After this many epochs without a wanted row, no further wanted row is expected."""


class RowsOf:
    """An order without the unwanted rows. With weighted sources, the number of wanted rows differs between epochs."""

    def __init__(self, order: RowOrder, wanted: npt.NDArray[np.bool_]) -> None:
        self.order, self.wanted = order, wanted
        self._epoch = lru_cache(maxsize=4)(self._rows_of_epoch)
        self._starts = [0]
        """Rows before each epoch, counted as far as needed."""
        self.rows_per_epoch = len(self._epoch(0))
        self.total_tokens, self.tokens_per_epoch = order.total_tokens, order.tokens_per_epoch
        self.total_rows: int | None = None
        if order.total_rows is not None:
            while len(self._starts) * order.rows_per_epoch < order.total_rows + order.rows_per_epoch:
                self._count_next_epoch()
            self.total_rows = self._starts[-1]

    def _rows_of_epoch(self, epoch: int) -> Ints:
        start, count = epoch * self.order.rows_per_epoch, self.order.rows_per_epoch
        if self.order.total_rows is not None:
            count = max(0, min(count, self.order.total_rows - start))
        rows = self.order.rows(start, count)
        wanted: Ints = rows[self.wanted[rows]]
        return wanted

    def _count_next_epoch(self) -> None:
        self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))

    def rows(self, start: int, count: int) -> Ints:
        """Raises `DataError` beyond the last row."""
        end = start + count
        while self._starts[-1] < end:
            self._count_next_epoch()
            if self.total_rows is not None or self._starts[-_IDLE_EPOCHS - 1 :].count(self._starts[-1]) > _IDLE_EPOCHS:
                raise DataError(
                    f"duration: the part of the data that is trained on ends after {self._starts[-1]:,} rows, because "
                    f"of its sources' max_epochs; found a duration of at least {end:,} rows"
                )
        first = bisect_right(self._starts, start) - 1
        last = bisect_left(self._starts, end)
        epochs = [self._epoch(epoch) for epoch in range(first, last)]
        return np.concatenate([*epochs, np.zeros(0, np.int64)])[start - self._starts[first] :][:count]

    def position_at_tokens(self, tokens: int) -> int:
        raise DataError("duration: found tokens, expected steps or epochs for part of the data")
