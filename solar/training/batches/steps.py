"""The data of each optimizer step: a pure function of the step's number, cut into micro-batches for this device."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from solar.config.duration import Duration, Unit
from solar.config.optimizer import ScheduleConfig
from solar.data.store.dataset import Row
from solar.errors import DataError
from solar.network.microbatch import Ints, MicroBatch
from solar.training.optim.schedule import Schedule


class Rows(Protocol):
    """A split of tokens on disk (`solar.data.store.dataset.TokenDataset`)."""

    row_tokens: npt.NDArray[Any]
    row_trained_tokens: npt.NDArray[Any]

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Row: ...


class RowOrder(Protocol):
    """In what order rows are read (`solar.data.order.order.Order`)."""

    rows_per_epoch: int
    total_rows: int | None
    """None if the stream is endless."""
    total_tokens: float | None
    tokens_per_epoch: int

    def rows(self, start: int, count: int) -> Ints: ...

    def position_at_tokens(self, tokens: int) -> int: ...


class Step:
    """One optimizer step as one device computes it. (Lightning would walk into a dataclass and convert what it finds.)

    `micro_batches`: as many on every device; without any, there is nothing left to do. `rows`, `tokens` and
    `trained_tokens` are those of the whole step, all devices together.
    """

    def __init__(self, micro_batches: list[MicroBatch], rows: int, tokens: int, trained_tokens: int) -> None:
        self.micro_batches, self.rows = micro_batches, rows
        self.tokens, self.trained_tokens = tokens, trained_tokens


@dataclass(frozen=True)
class Budget:
    """How much is trained: rows in all, in steps of `global_batch_size` rows, of which the last may be short."""

    rows: int
    global_batch_size: int

    @property
    def steps(self) -> int:
        return -(-self.rows // self.global_batch_size)

    def schedule(self, config: ScheduleConfig, order: RowOrder) -> Schedule:
        return Schedule.of(config, self.steps, lambda tokens: self.steps_of(Duration(tokens, Unit.tokens), order))

    def steps_of(self, duration: Duration, order: RowOrder) -> int:
        """So many steps or tokens in whole steps, to the nearest."""
        if duration.unit is Unit.steps:
            return round(duration.amount)
        return round(order.position_at_tokens(round(duration.amount)) / self.global_batch_size)

    @classmethod
    def of(cls, duration: Duration, order: RowOrder, global_batch_size: int) -> "Budget":
        """Steps and tokens are whole batches (tokens rounded up); epochs are exact: every row is read as often.

        Raises `DataError` where the sources' caps end the data before.
        """
        size, total = global_batch_size, order.total_rows
        if duration.unit is Unit.steps:
            rows, tokens = max(1, round(duration.amount)) * size, None
        elif duration.unit is Unit.epochs:
            tokens = duration.amount * order.tokens_per_epoch
            rows = max(1, round(duration.amount * order.rows_per_epoch))
        else:
            tokens = round(duration.amount)
            rows = max(1, -(-order.position_at_tokens(tokens) // size)) * size
        if total is not None and tokens is not None and tokens <= (order.total_tokens or 0) * (1 + 1e-9):
            rows = max(1, min(rows, total))  # all there is: the last step may be short
        elif total is not None and (tokens is not None or rows > total):
            raise DataError(
                f"duration: found {duration}, but max_epochs ends the data after {total:,} rows "
                f"({total // size:,} whole steps); allow more epochs or train for less"
            )
        order.rows(rows - 1, 1)  # refuses now what it would refuse at the end
        return cls(rows, global_batch_size)


class StepDataset(Dataset[Step]):
    """Step number -> the micro-batches that rank `rank` of `world_size` computes for it."""

    def __init__(
        self,
        rows: Rows,
        order: RowOrder,
        assemble: Callable[[Sequence[Row]], MicroBatch],
        budget: Budget,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows, self.order, self.assemble, self.budget = rows, order, assemble, budget
        self.micro_batch_size, self.rank, self.world_size = micro_batch_size, rank, world_size

    def __len__(self) -> int:
        return self.budget.steps

    def row_numbers(self, step: int) -> Ints:
        """The rows of a step, in order; rank r of W takes every W-th from the r-th on."""
        start = step * self.budget.global_batch_size
        count = max(0, min(self.budget.global_batch_size, self.budget.rows - start))
        return self.order.rows(start, count) if count else np.zeros(0, np.int64)

    def __getitem__(self, step: int) -> Step:
        numbers = self.row_numbers(step)
        own = [self.rows[int(number)] for number in numbers[self.rank :: self.world_size]]
        size = self.micro_batch_size
        most = -(-len(numbers) // self.world_size)
        return Step(
            micro_batches=[self.assemble(own[i : i + size]) for i in range(0, most, size)],
            rows=len(numbers),
            tokens=int(self.rows.row_tokens[numbers].sum()),
            trained_tokens=int(self.rows.row_trained_tokens[numbers].sum()),
        )


def step_loader(dataset: StepDataset, first_step: int, num_workers: int) -> DataLoader[Step]:
    """Steps from `first_step` on; a finished training gives one step without micro-batches."""
    steps = range(first_step, max(len(dataset), first_step + 1))
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_parent,
        prefetch_factor=2 if num_workers else None,
    )


def _as_it_is(step: Any) -> Any:
    return step


def _leave_signals_to_the_parent(_: int) -> None:
    """A worker must live until its parent has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
