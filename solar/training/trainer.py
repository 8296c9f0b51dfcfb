"""The only place where a Lightning `Trainer` is made: it runs a module's steps, and saves the model."""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from traceback import walk_tb
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.strategies import Strategy as LightningStrategy
from torch.utils.data import DataLoader

from solar.config.optimizer import OptimizerName
from solar.config.plain import as_plain
from solar.config.root import LoggerConfig, Strategy, TrainerConfig
from solar.config.training import AverageKind, Precision, TrainConfig
from solar.errors import Interrupted, StageError
from solar.network.adapter import folded, transposed_layers
from solar.training.batches.continuation import KEPT, Trunk
from solar.training.batches.steps import Step, StepDataset, step_loader
from solar.training.batches.validation_rows import ValidationRows
from solar.training.callbacks.incidents import Incidents
from solar.training.callbacks.interrupt import StopRequest
from solar.training.callbacks.recorder import Recorder
from solar.training.callbacks.saver import Saver, Validator
from solar.training.callbacks.telemetry import Telemetry
from solar.training.callbacks.trackers import build_loggers, finish
from solar.training.checkpoint.export import gathered, save_model, stored_dtype
from solar.training.checkpoint.points import Points, SafetensorsCheckpointIO, newest_whole, step_of
from solar.training.distributed.sharding import ShardedStrategy
from solar.training.modules.step import TrainingModule

Metrics = dict[str, float]
PRECISIONS = {Precision.fp32: "32-true", Precision.bf16_true: "bf16-true", Precision.bf16_mixed: "bf16-mixed"}


class Surroundings(Protocol):
    """How and where: nothing in it changes what is computed."""

    @property
    def experiment(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def trainer(self) -> TrainerConfig: ...
    @property
    def logger(self) -> LoggerConfig: ...
    @property
    def run_dir(self) -> Path: ...
    @property
    def progress(self) -> Callable[[str], None]: ...


def place(trainer: TrainerConfig, config: TrainConfig) -> tuple[int, int]:
    """Which of how many batches of a step this process computes; several need a launcher (torchrun)."""
    if trainer.devices * trainer.num_nodes == 1:
        return 0, 1
    if not TorchElasticEnvironment.detect():
        raise StageError(f"trainer.devices: found {trainer.devices} without torchrun, expected to be started by it")
    if config.global_batch_size % trainer.replicas:
        raise StageError(
            f"global_batch_size: found {config.global_batch_size}, expected a multiple of {trainer.replicas}: "
            "so many batches are computed at a time"
        )
    return int(os.environ["RANK"]) // trainer.tensor_parallel, trainer.replicas


def train(
    module: TrainingModule,
    steps: StepDataset,
    held_out: ValidationRows,
    model_dir: Path,
    output: Path,
    where: Surroundings,
    stop: StopRequest,
) -> Metrics:
    """Run all steps that no checkpoint in `output` has done yet, and save the model beside the files of `model_dir`."""
    settings, folder = where.trainer, output / "checkpoints"
    resume, passed_over = newest_whole(folder)
    for line in passed_over:
        warnings.warn(line, stacklevel=2)
    first = step_of(resume) - module.first_step if resume else 0
    if resume is None and module.config.branch:
        resume = Trunk.of(model_dir).checkpoint
    recorder = Recorder(output / "logs" / "metrics.jsonl", settings.log_every_steps, where.progress)
    callbacks = _callbacks(module, steps, held_out, output, settings, recorder, stop)
    trainer = _trainer(module.config, callbacks, output, where)
    try:
        loader = step_loader(steps, first, settings.num_workers)
        _run(trainer, module, loader, resume)
        weights = trainer.strategy.lightning_module_state_dict()
    finally:
        finish(trainer)
    _save(trainer, module, weights, model_dir, output / "model")
    trainer.strategy.barrier()
    _part()
    return recorder.summary | {
        "steps": float(module.steps_done),
        "train_tokens": float(module.tokens_done),
        "train_flops": module.flops_done,
        "skipped_steps": float(module.guard.skipped),
        "rollbacks": float(module.guard.rollbacks),
        "tokens_per_second": recorder.session_tokens / max(1e-9, recorder.stopwatch.seconds),
    }


def _run(trainer: pl.Trainer, module: TrainingModule, loader: DataLoader[Step], resume: Path | None) -> None:
    """Every step that is left. Raises `Interrupted` or `StageError`."""
    try:
        trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    except Interrupted:
        _part()
        raise
    except (RuntimeError, OSError, EOFError) as error:
        if not _lost_a_worker(error):
            raise
        raise StageError(
            "a process that reads data was killed, as the system does when memory runs out; set trainer.num_workers "
            "lower, and run the same command to go on from the last checkpoint"
        ) from error
    if 0 < module.guard.skipped == module.steps_done - module.first_step:
        raise StageError(
            f"training learnt nothing: each of its {module.guard.skipped} steps had a loss or gradient that is not "
            "finite; lower optimizer.lr, and look at the data"
        )


def _lost_a_worker(error: Exception) -> bool:
    """torch says so by itself, from wherever it was, or fails in asking a dead worker for its data."""
    asking = any(frame.f_code.co_name == "_try_get_data" for frame, _ in walk_tb(error.__traceback__))
    return asking or re.match(r"DataLoader worker \(pid.* (killed|exited)", str(error)) is not None


def _save(trainer: pl.Trainer, module: TrainingModule, weights: dict[str, Any], model_dir: Path, folder: Path) -> None:
    """The network's weights, adapters folded in, beside the files of `model_dir`; by rank 0."""
    prefix = "network."
    named = {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}
    named = gathered(named, stored_dtype(model_dir), trainer.is_global_zero)
    if trainer.is_global_zero:
        if module.config.adapter.rank:
            named = folded(named, module.config.adapter, transposed_layers(module.network))
        save_model(module.network, named, model_dir, folder)


def _callbacks(
    module: TrainingModule,
    steps: StepDataset,
    held_out: ValidationRows,
    output: Path,
    settings: TrainerConfig,
    recorder: Recorder,
    stop: StopRequest,
) -> list[pl.Callback]:
    """In the order they act: what is recorded of a step comes before the checkpoint that says it is done."""
    folder, guard, points = output / "checkpoints", module.config.guard, None
    if guard.rollback_every_steps is not None and guard.rollback_after is not None:
        points = Points(module.first_step, guard.rollback_every_steps, guard.rollback_after)
    seconds, keep = settings.checkpoint_every_seconds, settings.keep_checkpoints
    saver = Saver(folder, seconds, keep, stop, recorder.stopwatch, points)
    return [
        LambdaCallback(
            on_train_start=lambda *_: module.prepare(steps, held_out, output),
            on_train_end=lambda trainer, _: _finish(trainer, module, output, saver),
        ),
        Incidents(output / "logs" / "skipped.jsonl", folder, steps.row_numbers),
        recorder,
        Telemetry(recorder, settings.telemetry_every_steps),
        Validator(held_out, module.config.validate_every_steps, recorder, stop),
        saver,
    ]


def _part() -> None:
    """Ranks part before their processes end: threads of gloo that outlive the interpreter abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _finish(trainer: pl.Trainer, module: TrainingModule, output: Path, saver: Saver) -> None:
    """Keep what a branch, or a run that is stopped from here on, goes on from, before an average takes its place."""
    config = module.config
    if config.average.kind is not AverageKind.none or config.optimizer.name is OptimizerName.schedule_free:
        saver.save(trainer, module)
    if module.config.keep_optimizer:
        trainer.save_checkpoint(output / KEPT, weights_only=False)
    module.finish()


def _trainer(config: TrainConfig, callbacks: list[pl.Callback], output: Path, where: Surroundings) -> pl.Trainer:
    loggers = (
        build_loggers(where.logger, where.experiment, where.stage, where.run_dir, as_plain(config))
        if os.environ.get("RANK", "0") == "0"
        else []
    )
    if where.trainer.strategy is Strategy.fsdp and config.average.kind is not AverageKind.none:
        raise StageError("average: found with trainer.strategy fsdp, which cannot keep one; expected single or ddp")
    sharded = where.trainer.strategy is Strategy.fsdp
    several = where.trainer.devices * where.trainer.num_nodes > 1
    environment: list[Any] = [TorchElasticEnvironment()] if several else []
    return pl.Trainer(
        accelerator=where.trainer.accelerator,
        devices=where.trainer.devices,
        num_nodes=where.trainer.num_nodes,
        strategy=_strategy(where.trainer),
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
        max_epochs=1,
        logger=loggers,
        callbacks=callbacks,
        plugins=environment if sharded else [SafetensorsCheckpointIO(), *environment],
        default_root_dir=output,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _strategy(trainer: TrainerConfig) -> LightningStrategy | str:
    if trainer.strategy is Strategy.fsdp:
        return ShardedStrategy(trainer.replicas, trainer.tensor_parallel)
    if trainer.strategy is Strategy.ddp:
        from pytorch_lightning.strategies import DDPStrategy

        return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)
    return "auto"
