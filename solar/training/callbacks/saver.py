"""Checkpoints: when they are saved, and how a training that is asked to stop leaves."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from solar.errors import Interrupted
from solar.training.callbacks.stopwatch import Stopwatch
from solar.training.checkpoint.folder import IDENTITY
from solar.training.checkpoint.points import Points, checkpoint_path, prune
from solar.training.interrupt import StopRequest
from solar.training.modules.step import TrainingModule, training_module


class Saver(pl.Callback):
    """Saves every `every_seconds` seconds. When asked to stop, saves and raises `Interrupted`."""

    def __init__(
        self,
        folder: Path,
        every_seconds: float,
        keep: int,
        stop: StopRequest,
        stopwatch: Stopwatch,
        points: Points | None = None,
        identity: str | None = None,
    ) -> None:
        """`points`: steps that a training may be rolled back to. All other checkpoints only limit what a kill costs.

        `identity`: the id of the stage, which its checkpoints carry.
        """
        self.folder, self.every_seconds, self.keep, self.points = folder, every_seconds, keep, points
        self.stop, self.stopwatch, self.identity = stop, stopwatch, identity
        self._saved_at, self._saved_step = time.monotonic(), -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.stop.listen()  # Lightning has installed handlers of its own

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = training_module(pl_module)
        self.stop.listen()  # with several ranks, Lightning's handler would end them before they save
        self._saved_at, self._saved_step = time.monotonic(), module.steps_done
        first = self.points is not None and module.steps_done == module.first_step
        if first:
            self._saved_step = -1
        self._leave_if_asked(trainer, module, module.any_rank([first, bool(self.stop.received)]))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        due = trainer.is_global_zero and time.monotonic() - self._saved_at >= self.every_seconds
        training_module(pl_module).requests = [due, bool(self.stop.received)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = training_module(pl_module)
        if trainer.world_size == 1:
            module.requests[1] = bool(self.stop.received)
        save, stop = module.requests
        if module.record and self.points and self.points.includes(module.steps_done):
            save = True
        self._leave_if_asked(trainer, module, [save, stop])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = training_module(pl_module)
        self._leave_if_asked(trainer, module, module.any_rank([False, bool(self.stop.received)]))

    def _leave_if_asked(self, trainer: pl.Trainer, module: TrainingModule, requests: list[bool]) -> None:
        save, stop = requests
        if save or stop:
            self.save(trainer, module)
        if stop:
            name = self.stop.received.name if self.stop.received else "another process"
            if module.steps_done == module.first_step:
                raise Interrupted(f"stopped by {name} before the first step; the same command starts anew")
            raise Interrupted(
                f"stopped by {name} after step {module.steps_done} of {module.total_steps}, which is saved in "
                f"{self.folder}; the same command goes on from there"
            )

    def save(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        """Save a checkpoint, unless this step has been saved already."""
        if self._saved_step == module.steps_done:
            return
        with self.stopwatch.stopped():
            path, options = checkpoint_path(self.folder, module.steps_done), {IDENTITY: self.identity}
            trainer.save_checkpoint(path, weights_only=False, storage_options=options)
            if trainer.is_global_zero:
                prune(self.folder, self.keep, self.points, module.steps_done)
        self._saved_at, self._saved_step = time.monotonic(), module.steps_done
