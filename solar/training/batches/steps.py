"""The data of each optimizer step: a pure function of the step's number, cut into micro-batches for this device."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset

from solar.config.duration import Duration, Unit
from solar.config.optimizer import ScheduleConfig
from solar.data.store.dataset import Row, TokenDataset
from solar.errors import DataError
from solar.network.microbatch import Ints, MicroBatch
from solar.training.optim.schedule import Schedule


class RowOrder(Protocol):
    """In what order rows are read: the data's `Order`, or part of an order. A protocol, since data knows no parts."""

    rows_per_epoch: int
    total_rows: int | None
    """None if the stream never ends."""
    total_tokens: float | None
    tokens_per_epoch: int

    def rows(self, start: int, count: int) -> Ints: ...

    def position_at_tokens(self, tokens: int) -> int: ...


class Step:
    """One optimizer step as one device computes it. No dataclass, since Lightning converts the fields of dataclasses.

    Every device has the same number of micro-batches; a step without micro-batches does nothing. `rows`, `tokens` and
    `trained_tokens` count the whole step on all devices.
    """

    def __init__(self, micro_batches: list[MicroBatch], rows: int, tokens: int, trained_tokens: int) -> None:
        self.micro_batches, self.rows = micro_batches, rows
        self.tokens, self.trained_tokens = tokens, trained_tokens

    def pin_memory(self) -> "Step":
        """The data loader calls this where it pins."""
        pinned = [batch.pin_memory() for batch in self.micro_batches]
        return Step(pinned, self.rows, self.tokens, self.trained_tokens)


@dataclass(frozen=True)
class Budget:
    """How much is trained: `rows` in all, in steps of `global_batch_size` rows; the last step may be smaller."""

    rows: int
    global_batch_size: int

    @property
    def steps(self) -> int:
        return -(-self.rows // self.global_batch_size)

    def schedule(self, config: ScheduleConfig, order: RowOrder) -> Schedule:
        return Schedule.of(config, self.steps, lambda tokens: self.steps_of(Duration(tokens, Unit.tokens), order))

    def steps_of(self, duration: Duration, order: RowOrder) -> int:
        """A duration in steps or tokens as a number of whole steps, rounded."""
        if duration.unit is Unit.steps:
            return round(duration.amount)
        return round(order.position_at_tokens(round(duration.amount)) / self.global_batch_size)

    @classmethod
    def of(cls, duration: Duration, order: RowOrder, global_batch_size: int) -> "Budget":
        """Steps and tokens become whole batches (tokens rounded up). Epochs are exact: all rows are read equally often.

        Raises `DataError` where `max_epochs` of the sources ends the data earlier.
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
            rows = max(1, min(rows, total))  # all the data: the last step may be smaller
        elif total is not None and (tokens is not None or rows > total):
            raise DataError(
                f"duration: found {duration}, but max_epochs ends the data after {total:,} rows "
                f"({total // size:,} whole steps); allow more epochs or train for less"
            )
        order.rows(rows - 1, 1)  # refuse before the first step, not at the last
        return cls(rows, global_batch_size)


class StepDataset(Dataset[Step]):
    """Step number -> the micro-batches of that step that rank `rank` of `world_size` computes."""

    def __init__(
        self,
        rows: TokenDataset,
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
        """The rows of a step, in order; rank r of W takes rows r, r + W, r + 2 W, ..."""
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


def step_loader(dataset: StepDataset, first_step: int, num_workers: int, pinned: bool = False) -> DataLoader[Step]:
    """Steps from `first_step` on; after the last step, one step without micro-batches.

    `pinned`: in memory that a GPU reads without making the host wait.
    """
    steps = range(first_step, max(len(dataset), first_step + 1))
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        pin_memory=pinned,
        collate_fn=_unchanged,
        worker_init_fn=_leave_signals_to_the_parent,
        prefetch_factor=2 if num_workers else None,
    )


def _unchanged(step: Any) -> Any:
    return step


def _leave_signals_to_the_parent(_: int) -> None:
    """A worker must live until its parent process has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
