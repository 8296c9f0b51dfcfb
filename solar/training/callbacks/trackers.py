"""Experiment trackers as Lightning loggers; none asks a question, and none needs a network unless configured to."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from solar.config.root import LoggerConfig, LoggerName
from solar.redaction import redact


def build_loggers(
    config: LoggerConfig, experiment: str, stage: str, run_dir: Path, settings: dict[str, Any]
) -> list[Logger]:
    """The configured tracker; only for rank 0. The tracker shows `settings` beside the curves."""
    if config.name is LoggerName.wandb:
        return [_wandb(config, experiment, stage, run_dir, settings)]
    if config.name is LoggerName.tensorboard:
        from pytorch_lightning.loggers import TensorBoardLogger

        return [TensorBoardLogger(run_dir / "tensorboard", name=stage, version="")]
    return []


def _wandb(config: LoggerConfig, experiment: str, stage: str, run_dir: Path, settings: dict[str, Any]) -> Logger:
    """Offline unless the mode is online (`WANDB_MODE`, else the configuration) and an API key is configured."""
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    mode: Any = os.environ.get("WANDB_MODE", config.mode)
    if mode == "online" and not wandb.api.api_key:
        warnings.warn("wandb: no key is configured, so the run is kept offline", stacklevel=2)
        mode = "offline"
    run_dir.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"name": f"{experiment}/{stage}", "project": config.project, "dir": str(run_dir)}
    common |= {"group": experiment, "job_type": stage, "config": redact(settings), "reinit": "finish_previous"}
    # Without metadata: they hold the command line, with whatever secrets were typed there.
    quiet = wandb.Settings(
        silent=True, console="off", init_timeout=20, x_disable_stats=True, x_disable_meta=True, disable_git=True
    )
    try:
        run = wandb.init(mode=mode, settings=quiet, **common)
    except wandb.errors.Error as error:
        warnings.warn(f"wandb: {redact(str(error))}; the run is kept offline", stacklevel=2)
        run = wandb.init(mode="offline", settings=quiet, **common)
    return WandbLogger(experiment=run)


def finish(trainer: pl.Trainer) -> None:
    """Close the trackers' runs, so that the next stage of this process starts a run of its own."""
    for logger in trainer.loggers:
        logger.finalize("success")
        run = getattr(logger, "experiment", None)
        if run is not None and hasattr(run, "finish"):
            run.finish()
