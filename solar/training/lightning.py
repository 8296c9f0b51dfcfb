"""The only place where a Lightning `Trainer` is made."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import Strategy as LightningStrategy

from solar.config.plain import as_plain
from solar.config.root import Strategy, TrainerConfig
from solar.config.run_context import RunContext
from solar.config.training import AverageKind, Precision, TrainConfig
from solar.errors import StageError
from solar.training.callbacks.trackers import build_loggers
from solar.training.checkpoint.folder import SafetensorsCheckpointIO
from solar.training.distributed.sharding import ShardedStrategy

PRECISIONS = {Precision.fp32: "32-true", Precision.bf16_true: "bf16-true", Precision.bf16_mixed: "bf16-mixed"}


def replica_of(trainer: TrainerConfig, config: TrainConfig) -> tuple[int, int]:
    """Number of the batch of each step that this process computes, and how many batches are computed at a time.

    Raises `StageError` where several processes are configured and torchrun did not start them, or where they cannot
    share `global_batch_size` evenly.
    """
    if trainer.devices * trainer.num_nodes == 1:
        return 0, 1
    if not TorchElasticEnvironment.detect():
        raise StageError(f"trainer.devices: found {trainer.devices} without torchrun, expected to be started by it")
    if config.global_batch_size % trainer.replicas:
        raise StageError(
            f"global_batch_size: found {config.global_batch_size}, expected a multiple of {trainer.replicas}, "
            "the number of batches that are computed at a time"
        )
    return int(os.environ["RANK"]) // trainer.tensor_parallel, trainer.replicas


def make_trainer(config: TrainConfig, callbacks: list[pl.Callback], output: Path, context: RunContext) -> pl.Trainer:
    """A trainer that runs the steps and the callbacks, and nothing that Lightning would add by itself."""
    trainer = context.trainer
    sharded = trainer.strategy is Strategy.fsdp
    if sharded and config.average.kind is not AverageKind.none:
        raise StageError("average: found with trainer.strategy fsdp, which cannot keep one; expected single or ddp")
    several = trainer.devices * trainer.num_nodes > 1
    plugins: list[Any] = [TorchElasticEnvironment()] if several else []
    if not sharded:
        plugins.append(SafetensorsCheckpointIO())
    return pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        strategy=_strategy(trainer),
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
        max_epochs=1,
        logger=_loggers(config, context),
        callbacks=callbacks,
        plugins=plugins,
        default_root_dir=output,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _loggers(config: TrainConfig, context: RunContext) -> list[Any]:
    if os.environ.get("RANK", "0") != "0":
        return []
    return list(build_loggers(context.logger, context.experiment, context.stage, context.run_dir, as_plain(config)))


def _strategy(trainer: TrainerConfig) -> LightningStrategy | str:
    if trainer.strategy is Strategy.fsdp:
        return ShardedStrategy(trainer.replicas, trainer.tensor_parallel)
    if trainer.strategy is Strategy.ddp:
        from pytorch_lightning.strategies import DDPStrategy

        return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)
    return "auto"
