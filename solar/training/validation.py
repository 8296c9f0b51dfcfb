"""The loss on text that is never trained, in the same micro-batches and number format as training."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from solar.training.microbatch import MicroBatch, Row
from solar.training.module import TrainingModule
from solar.training.optim import settled
from solar.training.steps import Rows


class ValidationRows:
    """The first `limit` rows of the validation split, dealt to the ranks in equally many micro-batches."""

    def __init__(
        self,
        rows: Sequence[Row] | Rows,
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
        """Micro-batches of each rank."""
        return math.ceil(math.ceil(self.count / self.world_size) / self.size)

    def __iter__(self) -> Iterator[MicroBatch]:
        own = range(self.rank, self.count, self.world_size)
        for index in range(len(self)):
            yield self.assemble([self.rows[row] for row in own[index * self.size : (index + 1) * self.size]])


@torch.no_grad()
def validate(module: TrainingModule, batches: ValidationRows, stopped: Callable[[], object]) -> dict[str, float]:
    """Means over all ranks, each under its name with `valid_` before it; empty without rows, or if asked to stop.

    With several ranks nobody stops half-way, because the others would wait for it.
    """
    totals: dict[str, torch.Tensor] = {}
    training = module.network.training
    module.network.eval()
    try:
        with settled(module.trainer.optimizers):
            for batch in batches:
                if stopped() and batches.world_size == 1:
                    return {}
                with module.trainer.precision_plugin.forward_context():
                    moved = batch.to(module.device)
                    loss, others = module.loss_sum(moved)
                counts = {"divisor": loss.new_tensor(module.validation_divisor(batch))}
                for name, value in ({"loss": loss, **others} | counts).items():
                    totals[name] = totals[name] + value.double() if name in totals else value.double()
    finally:
        module.network.train(training)
    if not totals:
        return {}
    sums = module.over_ranks(totals)
    divisor = max(1.0, sums.pop("divisor"))
    return {f"valid_{name}": value / divisor for name, value in sums.items()}
