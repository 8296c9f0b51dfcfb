"""Run a module's steps, and save the trained model."""

import re
import warnings
from pathlib import Path
from traceback import walk_tb
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback
from torch.utils.data import DataLoader

from solar.config.optimizer import OptimizerName
from solar.config.run_context import RunContext
from solar.config.training import AverageKind
from solar.errors import Interrupted, StageError
from solar.network.adapter import folded, transposed_layers
from solar.network.quantised.base import dequantised, describe
from solar.training.batches.continuation import KEPT, Trunk
from solar.training.batches.steps import Step, StepDataset, step_loader
from solar.training.batches.validation_rows import ValidationRows
from solar.training.callbacks.incidents import Incidents
from solar.training.callbacks.recorder import Recorder
from solar.training.callbacks.saver import Saver
from solar.training.callbacks.telemetry import Telemetry
from solar.training.callbacks.trackers import finish
from solar.training.callbacks.validation import Validator
from solar.training.checkpoint.export import gathered, save_adapter, save_model, stored_dtypes, without_tied
from solar.training.checkpoint.points import Points, newest_whole, step_of
from solar.training.determinism import determinism
from solar.training.interrupt import StopRequest
from solar.training.lightning import make_trainer
from solar.training.memory import peak_bytes, reset_peak
from solar.training.modules.step import TrainingModule

Metrics = dict[str, Any]


def train(
    module: TrainingModule,
    steps: StepDataset,
    held_out: ValidationRows,
    model_dir: Path,
    output: Path,
    context: RunContext,
    stop: StopRequest,
) -> Metrics:
    """Run the steps that no checkpoint in `output` has done yet, and save the model with the files of `model_dir`."""
    settings, folder = context.trainer, output / "checkpoints"
    resume, damaged = newest_whole(folder, context.identity)
    for line in damaged:
        warnings.warn(line, stacklevel=2)
    first = step_of(resume) - module.first_step if resume else 0
    if resume is None and module.config.branch:
        resume = Trunk.of(model_dir).checkpoint
    recorder = Recorder(output / "logs" / "metrics.jsonl", settings.log_every_steps, context.progress)
    callbacks = _callbacks(module, steps, held_out, output, context, recorder, stop)
    trainer = make_trainer(module.config, callbacks, output, context)
    device = trainer.strategy.root_device
    reset_peak(device)
    try:
        loader = step_loader(steps, first, settings.loading_processes, pinned=device.type == "cuda")
        with determinism(settings):
            _run(trainer, module, loader, resume)
        peak = peak_bytes(device)
        weights = trainer.strategy.lightning_module_state_dict()
    finally:
        finish(trainer)
    _save(trainer, module, weights, model_dir, output)
    trainer.strategy.barrier()
    leave_process_group()
    metrics: Metrics = recorder.summary | {
        "steps": float(module.steps_done),
        "train_tokens": float(module.tokens_done),
        "train_flops": module.flops_done,
        "skipped_steps": float(module.guard.skipped),
        "rollbacks": float(module.guard.rollbacks),
        "tokens_per_second": recorder.session_tokens / max(1e-9, recorder.stopwatch.seconds),
        "threads": torch.get_num_threads(),  # another number adds up in another order
    }
    metrics |= {} if peak is None else {"peak_memory_bytes": float(peak)}
    if (form := module.config.adapter.base) is not None:
        metrics["adapter_base"] = describe(module.network, form)
    ways = sorted(module.decoders[0].choices)
    return metrics | ({"attention": "; ".join(ways)} if ways else {})


def _run(trainer: pl.Trainer, module: TrainingModule, loader: DataLoader[Step], resume: Path | None) -> None:
    """Run the remaining steps. Raises `Interrupted` or `StageError`."""
    try:
        trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    except Interrupted:
        leave_process_group()
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
    """Whether a worker of the data loader died: torch says so, or fails while it waits for the worker's data."""
    waiting = any(frame.f_code.co_name == "_try_get_data" for frame, _ in walk_tb(error.__traceback__))
    return waiting or re.match(r"DataLoader worker \(pid.* (killed|exited)", str(error)) is not None


def _save(trainer: pl.Trainer, module: TrainingModule, weights: dict[str, Any], model_dir: Path, output: Path) -> None:
    """Rank 0 writes `model/`, with the adapter folded in, and `adapter/` where the configuration keeps the adapter.

    A base that was held in few bits is written with its rounded weights: the adapter was trained beside these.
    """
    prefix, adapter, dtypes = "network.", module.config.adapter, stored_dtypes(model_dir)
    named = {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}
    named = gathered(without_tied(module.network, named, dtypes), dtypes, trainer.is_global_zero)
    if not trainer.is_global_zero:
        return
    if adapter.keep:
        save_adapter(module.network, named, output / "adapter")
    named |= dequantised(module.network)
    if adapter.rank:
        named = folded(named, adapter, transposed_layers(module.network))
    save_model(module.network, named, dtypes, model_dir, output / "model")


def _callbacks(
    module: TrainingModule,
    steps: StepDataset,
    held_out: ValidationRows,
    output: Path,
    context: RunContext,
    recorder: Recorder,
    stop: StopRequest,
) -> list[pl.Callback]:
    """In the order they act: a step's numbers are recorded before the checkpoint that says the step is done."""
    folder, guard, points, settings = output / "checkpoints", module.config.guard, None, context.trainer
    if guard.rollback_every_steps is not None and guard.rollback_after is not None:
        points = Points(module.first_step, guard.rollback_every_steps, guard.rollback_after)
    seconds, keep = settings.checkpoint_every_seconds, settings.keep_checkpoints
    saver = Saver(folder, seconds, keep, stop, recorder.stopwatch, points, context.identity)
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


def leave_process_group() -> None:
    """Leave before the process ends: a gloo thread that outlives the interpreter aborts the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _finish(trainer: pl.Trainer, module: TrainingModule, output: Path, saver: Saver) -> None:
    """Save the last weights before an average replaces them: an interrupted run and a branch go on from the last."""
    config = module.config
    if config.average.kind is not AverageKind.none or config.optimizer.name is OptimizerName.schedule_free:
        saver.save(trainer, module)
    if config.keep_optimizer:
        trainer.save_checkpoint(output / KEPT, weights_only=False)
    module.finish()
