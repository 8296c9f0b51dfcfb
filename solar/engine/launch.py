"""Run one stage: in this process, or on several devices in processes of its own."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

from solar.config.base import StageConfig
from solar.config.kinds import STAGES, function_of
from solar.engine.context import Inputs, Metrics, RunContext, Stage
from solar.engine.job import Job
from solar.errors import Interrupted, StageError

PROGRESS = "progress: "
"""How rank 0 marks the lines of its output that replace the stage's live line."""
RESUMABLE = 75
"""Exit code (EX_TEMPFAIL) of a process that stopped on request and can go on later."""


def launch(config: StageConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Do a stage's work and return its metrics.

    Training on more than one device runs under torchrun: the ranks are fresh processes that never see Hydra, and their
    memory is free again when the stage ends.
    """
    trainer = context.trainer
    if not STAGES[config.kind].trains or trainer.devices * trainer.num_nodes == 1:
        return resolve(config.kind)(config, inputs, output, context)
    job = output / "job"
    job.mkdir(exist_ok=True)
    for name in ("interrupted", "error", "metrics.json"):  # what an earlier attempt may have left
        (job / name).unlink(missing_ok=True)
    (job / "job.json").write_text(Job.of(config, inputs, output, context).to_json(), encoding="utf-8")
    code = _follow(_command(context, job), output, context)
    if code == RESUMABLE or (job / "interrupted").exists():
        raise Interrupted(
            f"{context.stage}: stopped on request; run the same command to go on from its last checkpoint"
        )
    if (job / "error").exists():
        raise StageError((job / "error").read_text(encoding="utf-8"))
    if code != 0:
        raise StageError(
            f"{context.stage}: a rank failed (exit code {code}); what it said is in {output}/logs/ranks.log"
        )
    metrics = json.loads((job / "metrics.json").read_text(encoding="utf-8"))
    for path in job.iterdir():
        path.unlink()
    job.rmdir()
    return cast(Metrics, metrics)


def resolve(kind: str) -> Stage[StageConfig]:
    """The function that does a kind's work; only now are its libraries imported."""
    module, function = function_of(kind).rsplit(".", 1)
    return cast(Stage[StageConfig], getattr(importlib.import_module(module), function))


def _command(context: RunContext, job: Path) -> list[str]:
    trainer = context.trainer
    worker = ["--module", "solar.engine.worker", str((job / "job.json").resolve())]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={trainer.devices}"]
    if trainer.num_nodes == 1:
        return [*torchrun, "--standalone", *worker]
    if "SLURM_JOB_ID" not in os.environ:
        raise StageError(
            f"trainer.num_nodes: found {trainer.num_nodes} outside a SLURM allocation that starts the others; "
            "run inside one (salloc, sbatch), or set it to 1"
        )
    endpoint = f"--rdzv_endpoint={os.environ.get('SLURMD_NODENAME', 'localhost')}:29400"
    nodes = [
        f"--nnodes={trainer.num_nodes}",
        "--rdzv_backend=c10d",
        f"--rdzv_id={os.environ['SLURM_JOB_ID']}",
        endpoint,
    ]
    return ["srun", f"--nodes={trainer.num_nodes}", "--ntasks-per-node=1", *torchrun, *nodes, *worker]


def _follow(command: list[str], output: Path, context: RunContext) -> int:
    """Run to the end, showing progress; a signal to this process is passed on, so that the ranks can save."""
    (output / "logs").mkdir(exist_ok=True)
    with (
        (output / "logs" / "ranks.log").open("a", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        previous = {s: signal.signal(s, lambda n, _: process.send_signal(n)) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(PROGRESS):
                    context.progress(line.removeprefix(PROGRESS).rstrip())
                else:
                    log.write(line)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
    return process.returncode
