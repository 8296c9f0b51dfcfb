"""Curves and progress: a line of `metrics.jsonl` for each logged step, the same to the trackers, one live line."""

import json
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from solar.training.callbacks.log_file import cut_back
from solar.training.callbacks.stopwatch import Stopwatch
from solar.training.modules.step import TrainingModule, training_module


class Recorder(pl.Callback):
    """Writes `metrics.jsonl`, sends the same numbers to the trackers, and shows the progress.

    A line holds the means over the steps since the previous line; sums of skipped and rolled-back steps; the learning
    rate and the counters at the last of the steps.
    """

    SNAPSHOTS = ("step", "tokens", "flops", "lr")
    SUMS = ("skipped", "rolled_back")

    def __init__(self, path: Path, every_steps: int, progress: Callable[[str], None]) -> None:
        self.path, self.every_steps, self.progress = path, every_steps, progress
        self.summary: dict[str, float] = {}
        """First and last value of each number, for the stage's metrics."""
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.lines = 0
        """Lines written so far."""
        self.stopwatch = Stopwatch()
        self.session_tokens = 0
        self.session_steps = 0
        self._line_tokens, self._line_seconds, self._shown = 0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = training_module(pl_module)
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = cut_back(self.path, module)
            if lines < self.lines:
                lost = (
                    f"{self.lines - lines} of its {self.lines} lines up to step {module.steps_done} are gone for good"
                )
                warnings.warn(f"{self.path}: {lost}", stacklevel=2)
            self.lines = lines
            self._file = self.path.open("a", encoding="utf-8")
        self._first_tokens = self._line_tokens = module.tokens_done
        self._first_step = module.steps_done
        self.stopwatch.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = training_module(pl_module)
        record = module.record
        if not record:
            return
        for name, value in record.items():
            self.sums[name] = value if name in self.SNAPSHOTS else self.sums.get(name, 0.0) + value
        self.steps += "skipped" not in record
        step = module.steps_done
        seconds = self.stopwatch.seconds
        self.session_tokens = module.tokens_done - self._first_tokens
        self.session_steps = step - self._first_step
        if step == module.first_step + 1 or step % self.every_steps == 0 or step == module.total_steps:
            not_means = {*self.SNAPSHOTS, *self.SUMS}
            line = {n: v if n in not_means else v / max(1, self.steps) for n, v in self.sums.items()}
            for name in [name for name in line if name not in {"grad_norm", *not_means}]:
                self.summary.setdefault(f"{name}_first", line[name])
                self.summary[f"{name}_last"] = line[name]
            rate = (module.tokens_done - self._line_tokens) / max(1e-9, seconds - self._line_seconds)
            self._line_tokens, self._line_seconds = module.tokens_done, seconds
            self.sums, self.steps = {}, 0
            self.write(trainer, line | {"tokens_per_second": rate})
        if seconds - self._shown > 0.5 or step == module.total_steps:
            self._shown = seconds
            self.progress(self._progress_line(module))

    def write(self, trainer: pl.Trainer, line: dict[str, float]) -> None:
        """Write one line of `metrics.jsonl`, and send the same numbers to the trackers."""
        if not trainer.is_global_zero:
            return
        values = {name: value if math.isfinite(value) else None for name, value in line.items()}
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        self.lines += 1
        for logger in trainer.loggers:
            logger.log_metrics({n: v for n, v in line.items() if n != "step"}, step=int(line["step"]))

    def _progress_line(self, module: TrainingModule) -> str:
        loss = module.record.get("loss", math.nan)
        seconds = self.stopwatch.seconds
        left = seconds / self.session_steps * (module.total_steps - module.steps_done)
        speed = compact(self.session_tokens / max(1e-9, seconds))
        return (
            f"step {module.steps_done}/{module.total_steps}  loss {loss:.2f}  {speed} tokens/s  "
            f"{int(left // 60)}:{int(left % 60):02d} left"
        )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.is_global_zero:
            os.fsync(self._file.fileno())

    def state_dict(self) -> dict[str, Any]:
        return {"summary": self.summary, "sums": self.sums, "steps": self.steps, "lines": self.lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.summary, self.sums, self.steps = state_dict["summary"], state_dict["sums"], state_dict["steps"]
        self.lines = state_dict.get("lines", 0)  # checkpoints of older versions do not hold it

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def compact(number: float) -> str:
    """A number in a few characters.

    >>> compact(812), compact(41300), compact(1_250_000)
    ('812', '41k', '1.2M')
    """
    if number < 1e3:
        return f"{number:.0f}"
    return f"{number / 1e3:.0f}k" if number < 1e6 else f"{number / 1e6:.1f}M"
