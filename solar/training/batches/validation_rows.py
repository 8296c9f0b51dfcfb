"""Held-out rows, shared out to the ranks."""

import math
from collections.abc import Callable, Iterator, Sequence

from solar.data.store.dataset import Row, TokenDataset
from solar.network.microbatch import MicroBatch


class ValidationRows:
    """The first `limit` rows of the validation split, shared out to the ranks in equal numbers of micro-batches."""

    def __init__(
        self,
        rows: Sequence[Row] | TokenDataset,
        assemble: Callable[[Sequence[Row]], MicroBatch],
        micro_batch_size: int,
        limit: int | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.count = len(rows) if limit is None else min(limit, len(rows))
        self.rows, self.assemble, self.size = rows, assemble, micro_batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        """Number of micro-batches of each rank."""
        return math.ceil(math.ceil(self.count / self.world_size) / self.size)

    def __iter__(self) -> Iterator[MicroBatch]:
        own = range(self.rank, self.count, self.world_size)
        for index in range(len(self)):
            yield self.assemble([self.rows[row] for row in own[index * self.size : (index + 1) * self.size]])
