"""The loss on text that is never trained, in the same micro-batches and number format as training."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from solar.network.device import format_of_sums
from solar.training.batches.validation_rows import ValidationRows
from solar.training.callbacks.recorder import Recorder
from solar.training.interrupt import StopRequest
from solar.training.modules.step import TrainingModule, training_module
from solar.training.optim.optimizers import weights_in_eval


class Validator(pl.Callback):
    """Validates before the first step, after the last step, and every `every_steps` steps in between."""

    def __init__(self, batches: ValidationRows, every_steps: int | None, recorder: Recorder, stop: StopRequest) -> None:
        self.batches, self.every_steps, self.recorder, self.stop = batches, every_steps, recorder, stop
        self.owed = False
        """Validation after the last checkpoint was interrupted; it is repeated on resume."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = training_module(pl_module)
        if module.steps_done == module.first_step:
            self._run(trainer, module, "first")
        elif self.owed:
            self.owed = not self._run(trainer, module, "last")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = training_module(pl_module)
        step = module.steps_done
        if self.every_steps and module.record and step % self.every_steps == 0 and step < module.total_steps:
            self.owed = not self._run(trainer, module, "last")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run(trainer, training_module(pl_module), "last")

    def state_dict(self) -> dict[str, Any]:
        return {"owed": self.owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.owed = state_dict["owed"]

    def _run(self, trainer: pl.Trainer, module: TrainingModule, when: str) -> bool:
        """Whether all held-out rows were read."""
        if not len(self.batches):
            return True
        with self.recorder.stopwatch.stopped():
            self.recorder.progress(f"step {module.steps_done}/{module.total_steps}  reading held-out text")
            result = validate(module, self.batches, lambda: self.stop.received)
            self.recorder.summary |= {f"{name}_{when}": value for name, value in result.items()}
            if result:
                counts = {"step": module.steps_done, "tokens": module.tokens_done, "flops": module.flops_done}
                self.recorder.write(trainer, counts | result)
        return bool(result)


@torch.no_grad()
def validate(module: TrainingModule, batches: ValidationRows, stopped: Callable[[], object]) -> dict[str, float]:
    """Means over all ranks, each named `valid_...`; empty without rows, or if a single process is asked to stop.

    One of several ranks does not stop half-way: the others would wait for its share of a layer or of the sums.
    """
    totals: dict[str, Tensor] = {}
    alone = module.trainer.world_size == 1
    training = module.network.training
    module.network.eval()
    try:
        with weights_in_eval(module.trainer.optimizers):
            for batch in batches:
                if alone and stopped():
                    return {}
                with module.trainer.precision_plugin.forward_context():
                    moved = batch.to(module.device)
                    loss, others = module.loss_sum(moved)
                counts = {"divisor": loss.new_tensor(module.validation_divisor(batch))}
                for name, value in ({"loss": loss, **others} | counts).items():
                    wide = value.to(format_of_sums(value.device.type))
                    totals[name] = totals[name] + wide if name in totals else wide
    finally:
        module.network.train(training)
    if not totals:
        return {}
    sums = module.over_ranks(totals)
    divisor = max(1.0, sums.pop("divisor"))
    return {f"valid_{name}": value / divisor for name, value in sums.items()}
