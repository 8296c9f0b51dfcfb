"""Numbers of each layer, at every n-th step, as lines of `metrics.jsonl` and in the trackers."""

from typing import Any

import pytorch_lightning as pl

from solar.training.callbacks.recorder import Recorder
from solar.training.modules.step import training_module


class Telemetry(pl.Callback):
    """Writes what the `LayerWatch` of the module measured; measuring does not change the training."""

    def __init__(self, recorder: Recorder, every_steps: int | None) -> None:
        self.recorder, self.every_steps = recorder, every_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        training_module(pl_module).watch.every_steps = self.every_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = training_module(pl_module)
        if module.record and module.watch.measured and "skipped" not in module.record:
            counts = {"step": module.steps_done, "tokens": module.tokens_done, "flops": module.flops_done}
            self.recorder.write(trainer, counts | module.watch.measured)
