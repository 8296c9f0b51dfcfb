"""The loss on text that is never trained, in the same micro-batches and number format as training."""

from collections.abc import Callable

import torch

from solar.training.batches.validation_rows import ValidationRows
from solar.training.modules.step import TrainingModule
from solar.training.optim.optimizers import settled


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
