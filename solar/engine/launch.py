"""Run one stage: in this process, or on several devices in processes of their own."""

import importlib
import json
import shutil
from pathlib import Path
from typing import cast

from solar.artifacts.atomic import write_atomically
from solar.config.base import StageConfig
from solar.config.kinds import STAGES, function_of
from solar.engine.context import Inputs, Metrics, RunContext, Stage
from solar.engine.job import Job
from solar.engine.ranks import CRASH, Ranks, cause
from solar.errors import Interrupted, StageError

RESUMABLE = 75
"""Exit code (EX_TEMPFAIL) of a process that stopped on request and can resume."""


def launch(config: StageConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Run a stage and return its metrics.

    Training on more than one device runs under torchrun. The ranks are fresh processes that never import Hydra, and
    their memory is free again when the stage ends.
    """
    trainer = context.trainer
    if not STAGES[config.kind].trains or trainer.devices * trainer.num_nodes == 1:
        return resolve(config.kind)(config, inputs, output, context)
    job, log = output / "job", output / "logs" / "ranks.log"
    job.mkdir(exist_ok=True)
    for name in ("interrupted", "error", CRASH, "metrics.json"):  # leftovers of an earlier attempt
        (job / name).unlink(missing_ok=True)
    write_atomically(job / "job.json", Job.of(config, inputs, output, context).to_json())
    log.unlink(missing_ok=True)
    ranks = Ranks(trainer, job / "job.json", log)
    code = ranks.run(context.progress)
    if code != 0 and (ranks.signals or (job / "interrupted").exists()):
        raise Interrupted(
            f"{context.stage}: stopped on request; run the same command to go on from its last checkpoint"
        )
    if (job / "error").exists():
        raise StageError(*(job / "error").read_text(encoding="utf-8").splitlines())
    if code != 0:
        why, copy = cause(job, log, code), context.run_dir / f"{context.stage}-ranks.log"
        context.run_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, copy)  # a stage's folder without checkpoints is removed
        raise StageError(f"{context.stage}: {why}; the output of all ranks is in {copy}")
    metrics = json.loads((job / "metrics.json").read_text(encoding="utf-8"))
    for path in job.iterdir():
        path.unlink()
    job.rmdir()
    return cast(Metrics, metrics)


def resolve(kind: str) -> Stage[StageConfig]:
    """The function of a kind; importing it imports the libraries it needs."""
    module, function = function_of(kind).rsplit(".", 1)
    return cast(Stage[StageConfig], getattr(importlib.import_module(module), function))
