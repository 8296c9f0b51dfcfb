"""What happens around the steps: held-out text is read, checkpoints are saved."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from solar.errors import Interrupted
from solar.training.batches.validation_rows import ValidationRows
from solar.training.callbacks.interrupt import StopRequest
from solar.training.callbacks.recorder import Recorder, Stopwatch
from solar.training.callbacks.validation import validate
from solar.training.checkpoint.points import Points, checkpoint_path, prune
from solar.training.modules.step import TrainingModule, training_module


class Validator(pl.Callback):
    """Reads the validation split before the first step, after the last, and every so often between."""

    def __init__(self, batches: ValidationRows, every_steps: int | None, recorder: Recorder, stop: StopRequest) -> None:
        self.batches, self.every_steps, self.recorder, self.stop = batches, every_steps, recorder, stop
        self.owed = False
        """Whether the reading after the step that was saved last was cut short: the next start makes up for it."""

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
        """Whether all was read."""
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


class Saver(pl.Callback):
    """Saves every so many seconds and when asked to stop; then leaves with `Interrupted`."""

    def __init__(
        self,
        folder: Path,
        every_seconds: float,
        keep: int,
        stop: StopRequest,
        stopwatch: Stopwatch,
        points: Points | None = None,
    ) -> None:
        """`points`: steps to roll back to, besides the checkpoints that only limit what a kill costs."""
        self.folder, self.every_seconds, self.keep, self.points = folder, every_seconds, keep, points
        self.stop, self.stopwatch = stop, stopwatch
        self._saved_at, self._saved_step = time.monotonic(), -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.stop.listen()  # Lightning has put handlers of its own

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = training_module(pl_module)
        self.stop.listen()  # Lightning's handler would end several ranks before they save
        self._saved_at, self._saved_step = time.monotonic(), module.steps_done
        first = self.points is not None and module.steps_done == module.first_step
        if first:
            self._saved_step = -1
        self._leave_if_asked(trainer, module, module.agree([first, bool(self.stop.received)]))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        due = trainer.is_global_zero and time.monotonic() - self._saved_at >= self.every_seconds
        training_module(pl_module).wishes = [due, bool(self.stop.received)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = training_module(pl_module)
        if trainer.world_size == 1:
            module.wishes[1] = bool(self.stop.received)
        save, stop = module.wishes
        if module.record and self.points and self.points.is_one(module.steps_done):
            save = True
        self._leave_if_asked(trainer, module, [save, stop])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = training_module(pl_module)
        self._leave_if_asked(trainer, module, module.agree([False, bool(self.stop.received)]))

    def _leave_if_asked(self, trainer: pl.Trainer, module: TrainingModule, wishes: list[bool]) -> None:
        save, stop = wishes
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
        """Unless this step has been saved already."""
        if self._saved_step == module.steps_done:
            return
        with self.stopwatch.stopped():
            trainer.save_checkpoint(checkpoint_path(self.folder, module.steps_done), weights_only=False)
            if trainer.is_global_zero:
                prune(self.folder, self.keep, self.points, module.steps_done)
        self._saved_at, self._saved_step = time.monotonic(), module.steps_done
