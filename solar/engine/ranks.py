"""The processes of one stage on several devices: torchrun starts them, a pipe ties their lives to this process.

A rank reads the pipe on its standard input. When the pipe ends, because this process was asked to stop or was killed,
the rank saves and exits. So killing this process leaves no orphans.
"""

import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from solar.config.root import TrainerConfig
from solar.errors import StageError
from solar.redaction import redact

PROGRESS = "progress: "
"""Prefix of the lines of rank 0's output that replace the stage's live line."""
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
CRASH = "crash"
"""File beside the job: number and error of the rank that failed first."""


def command(trainer: TrainerConfig, job: Path) -> list[str]:
    """The command that starts a job's ranks on this machine, or inside a SLURM allocation on all machines.

    >>> trainer = TrainerConfig(devices=2, num_nodes=1)
    >>> command(trainer, Path("/o/job/job.json"))[1:]
    ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone', '--module', 'solar.engine.worker', \
'/o/job/job.json']
    """
    worker = ["--module", "solar.engine.worker", str(job.resolve())]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={trainer.devices}"]
    if trainer.num_nodes == 1:
        return [*torchrun, "--standalone", *worker]
    name = f"{job.resolve().parents[1].name}-{os.environ.get('SLURM_JOB_ID', '')}"
    endpoint = trainer.rendezvous or f"{_first_node(trainer)}:{29400 + zlib.crc32(name.encode()) % 10000}"
    nodes = [f"--nnodes={trainer.num_nodes}", "--rdzv_backend=c10d", f"--rdzv_id={name}", f"--rdzv_endpoint={endpoint}"]
    if trainer.rendezvous:
        return [*torchrun, *nodes, *worker]
    return ["srun", f"--nodes={trainer.num_nodes}", "--ntasks-per-node=1", *torchrun, *nodes, *worker]


def _first_node(trainer: TrainerConfig) -> str:
    """The first machine of a SLURM allocation, where its ranks meet: `gpu3` of `gpu[3-7,9],big1`."""
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if listed is None:
        raise StageError(
            f"trainer.num_nodes: found {trainer.num_nodes} outside a SLURM allocation; run in one (salloc, sbatch), "
            "or set trainer.rendezvous to HOST:PORT of this machine and run solar.join on the others"
        )
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", listed).split(",")[0]


class Ranks:
    """Runs a job's ranks on this machine until they end."""

    def __init__(self, trainer: TrainerConfig, job: Path, log: Path) -> None:
        self.command, self.log = command(trainer, job), log
        self.signals = 0
        """Signals received: at the first the ranks save, at the second they are killed."""
        self._last_signal: int | None = None

    def run(self, progress: Callable[[str], None]) -> int:
        """The launcher's exit code."""
        self.log.parent.mkdir(exist_ok=True)
        with (
            self.log.open("a", encoding="utf-8") as log,
            subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C then reaches only this process, which asks the ranks to save
            ) as process,
        ):
            previous = {number: signal.signal(number, self._stopping(process)) for number in STOPS}
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith(PROGRESS):
                        progress(line.removeprefix(PROGRESS).rstrip())
                    else:
                        log.write(redact(line))
                        log.flush()
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
        if self._last_signal is not None and process.returncode == 0:
            signal.raise_signal(self._last_signal)  # it came too late for the ranks: the run ends after this stage
        return process.returncode

    def _stopping(self, process: "subprocess.Popen[str]") -> Callable[[int, FrameType | None], None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self.signals += 1
            self._last_signal = number
            if self.signals == 1 and process.stdin is not None:
                process.stdin.close()
            elif process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

        return stop


def cause(job: Path, log: Path, code: int) -> str:
    """Why ranks failed, in one line: the error of the rank that failed first, or the signal that killed a rank."""
    output = log.read_text(encoding="utf-8", errors="replace")
    killed = re.findall(r"Signal \d+ \((\w+)\) received by PID", output)
    if killed and killed[-1] == "SIGKILL":
        return "a rank was killed by SIGKILL, as the system does when memory runs out"
    if (job / CRASH).exists():
        crash = json.loads((job / CRASH).read_text(encoding="utf-8"))
        return f"rank {crash['rank']} failed: {crash['error']}"
    if errors := re.findall(r"^(?:\[\w+\]: ?)?([\w.]+(?:Error|Exception): .+)$", output, re.MULTILINE):
        return f"the ranks did not start: {errors[0]}"  # an error of the launcher, such as an address in use
    return f"a rank failed (exit code {code})"
