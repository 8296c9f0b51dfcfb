"""Part of the data: what one step of stepwise DPO (arXiv 2403.19270) trains on."""

import zlib
from functools import lru_cache

import numpy as np

from solar.config.preference import DpoConfig
from solar.config.training import TrainConfig
from solar.data.dataset import TokenDataset
from solar.errors import DataError
from solar.training.microbatch import Ints
from solar.training.steps import RowOrder


def chosen_rows(config: TrainConfig, data: TokenDataset, order: RowOrder) -> RowOrder:
    """The order restricted to the rows the configuration names; the order itself, where it names none."""
    if not isinstance(config, DpoConfig) or not (config.sources or config.part):
        return order
    wanted = np.ones(len(data), np.bool_)
    if config.sources:
        wanted[:] = False
        known = data.split.sources
        for name in config.sources:
            if name not in known:
                raise DataError(f"sources: found {name}, expected one of {', '.join(known)}")
            wanted[known[name].start : known[name].stop] = True
    if config.part:
        number, whole = (int(word) for word in config.part.split("/"))
        wanted &= part_of_rows(len(data), whole) == number - 1
    if not wanted.any():
        raise DataError(f"sources, part: no pair of the data is in {config.sources or 'all'}, part {config.part}")
    return RowsOf(order, wanted)


def part_of_rows(count: int, parts: int) -> Ints:
    """Which of `parts` equal parts each row is in, at random but the same for everybody.

    >>> np.bincount(part_of_rows(10, 3)).tolist()
    [4, 3, 3]
    """
    shuffled = np.argsort([zlib.crc32(number.to_bytes(8, "little")) for number in range(count)], kind="stable")
    found = np.empty(count, np.int64)
    found[shuffled] = np.arange(count) % parts
    return found


class RowsOf:
    """An order without the rows that are not wanted, epoch by epoch."""

    total_rows: int | None = None

    def __init__(self, order: RowOrder, wanted: np.ndarray) -> None:
        self.order, self.wanted = order, wanted
        self._epoch = lru_cache(maxsize=4)(self._rows_of_epoch)
        self.rows_per_epoch = len(self._epoch(0))

    def _rows_of_epoch(self, epoch: int) -> Ints:
        rows = self.order.rows(epoch * self.order.rows_per_epoch, self.order.rows_per_epoch)
        kept: Ints = rows[self.wanted[rows]]
        return kept

    def rows(self, start: int, count: int) -> Ints:
        found: list[int] = []
        while len(found) < count:
            epoch, place = divmod(start + len(found), self.rows_per_epoch)
            found += self._epoch(epoch)[place : place + count - len(found)].tolist()
        return np.array(found, np.int64)

    def position_at_tokens(self, tokens: int) -> int:
        raise DataError("duration: found tokens, expected steps or epochs for part of the data")
