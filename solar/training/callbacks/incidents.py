"""Skipped steps: the rows that they had read, and the rollback to earlier weights."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from solar.network.microbatch import Ints
from solar.training.callbacks.log_file import cut_back
from solar.training.checkpoint.points import checkpoint_path
from solar.training.modules.step import TrainingModule, training_module


class Incidents(pl.Callback):
    """Writes a line of `skipped.jsonl` for each step whose gradient was not used; rolls back after several in a row.

    A training rolls back to the checkpoint of every `rollback_every_steps`-th step, so that a resumed run rolls back to
    the same one. Steps, schedule and data go on: rows that were read since then are not read again.
    """

    def __init__(self, path: Path, checkpoints: Path, rows_of: Callable[[int], Ints]) -> None:
        self.path, self.checkpoints, self.rows_of = path, checkpoints, rows_of

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            cut_back(self.path, training_module(pl_module))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = training_module(pl_module)
        if "skipped" not in module.record:
            return
        step = module.steps_done
        loss, grad_norm = (value if math.isfinite(value) else None for value in module.guard.refused)
        line: dict[str, Any] = {"step": step, "loss": loss, "grad_norm": grad_norm}
        line["rows"] = self.rows_of(step - 1).tolist()
        rollback_point = module.guard.rollback_point(step - module.first_step)
        if rollback_point is not None:
            point = max(0, rollback_point) + module.first_step
            self._roll_back(trainer, module, point)
            module.guard.rollbacks += 1
            line["back_to_step"] = point
            module.record["rolled_back"] = float(step - point)
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _roll_back(self, trainer: pl.Trainer, module: TrainingModule, step: int) -> None:
        checkpoint = trainer.strategy.load_checkpoint(checkpoint_path(self.checkpoints, step), weights_only=True)
        trainer.strategy.load_model_state_dict(checkpoint)
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        module.average.restore(checkpoint["solar"]["average"])
