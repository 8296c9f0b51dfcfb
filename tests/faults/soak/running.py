"""Faults that hit running processes."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.soak.disks import fill
from tests.faults.soak.runs import MARK, Run, children, environment, living, until


@dataclass(frozen=True)
class Scene:
    """Where a fault strikes."""

    root: Path
    disk: Path | None
    """A disk that may be filled."""
    run: Run
    """The process that is hit."""


@dataclass(frozen=True)
class Fault:
    """What hits a running process, and how the process may end; it may also finish its work and exit 0."""

    strike: Callable[[Scene, random.Random], str | None]
    """Says what was done; None if the run ended before."""
    codes: frozenset[int] = frozenset()
    line: str = ""
    """Regular expression of the error line where the exit code is 1."""
    words: tuple[str, ...] = ()
    """Words of the command line that the fault needs."""
    hits_all: bool = False
    """Whether other runs on the store feel it, too."""


LIMIT_SECONDS = 300
TRAINED = ("base", "pretrain", "sft", "dpo_a")
NO_SPACE = r"No space left|File too large|cannot be saved|disk|free some space"


def _moment(scene: Scene, draw: random.Random) -> bool:
    """Wait for a random moment of the run: after its start, in a stage, or at a checkpoint; False if it ends first."""
    artifacts = scene.root / "artifacts"
    training = [stage for stage in TRAINED if not any(artifacts.glob(f"{stage}-{'[0-9a-f]' * 12}"))]
    at_checkpoint = f"{draw.choice(training)}-*.partial/checkpoints/step-*/manifest.json" if training else "*.partial"
    pattern = draw.choice(["", "*.partial", at_checkpoint, at_checkpoint])
    begun = scene.run.planned if draw.random() < 0.8 else lambda: True
    if not until(lambda: any(artifacts.glob(pattern)) if pattern else begun(), scene.run, LIMIT_SECONDS):
        return False
    time.sleep(draw.uniform(0, 0.5 if pattern == at_checkpoint else 5))
    return scene.run.process.poll() is None


def _signals(*numbers: signal.Signals, group: bool = False) -> Callable[[Scene, random.Random], str | None]:
    def strike(scene: Scene, draw: random.Random) -> str | None:
        process = scene.run.process
        if not _moment(scene, draw):
            return None
        planned = scene.run.planned()
        for number in numbers:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number) if group else process.send_signal(number)
            time.sleep(draw.uniform(0, 0.5) * (len(numbers) > 1))
        return f"{' '.join(n.name for n in numbers)} {'during' if planned else 'before'} the plan's work"

    return strike


def disk_full(scene: Scene, draw: random.Random) -> str | None:
    if scene.disk is None or not _moment(scene, draw):
        return None
    leave = draw.choice([0, 4096, 65536, 300_000])
    fill(scene.disk, leave)
    return f"left {leave} bytes on the disk"


def files_limited(scene: Scene, draw: random.Random) -> str | None:
    if not _moment(scene, draw):
        return None
    largest = draw.choice([16384, 65536, 200_000])
    with suppress(ProcessLookupError):
        resource.prlimit(scene.run.process.pid, resource.RLIMIT_FSIZE, (largest, largest))
    return f"no file may be larger than {largest} bytes"


def child_killed(scene: Scene, draw: random.Random) -> str | None:
    """A process that reads data, or one that renders templates."""
    pid = scene.run.process.pid
    if not until(lambda: bool(children(pid)), scene.run, LIMIT_SECONDS):
        return None
    time.sleep(draw.uniform(0, 0.5))
    found = children(pid)
    for child in found[:1]:
        os.kill(child, signal.SIGKILL)
    return f"SIGKILL of a child of {pid}" if found else None


def _ranks(run: Run) -> list[int]:
    marks = [entry for entry in environment(run.process.pid) if entry.startswith(f"{MARK}=".encode())]
    variables = {pid: environment(pid) for pid in living()}
    ranks = [pid for pid, entries in variables.items() if any(entry.startswith(b"LOCAL_RANK=") for entry in entries)]
    return [pid for pid in ranks if marks and marks[0] in variables[pid]]


def rank_killed(scene: Scene, draw: random.Random) -> str | None:
    if not until(lambda: len(_ranks(scene.run)) == 2, scene.run, LIMIT_SECONDS):
        return None
    time.sleep(draw.uniform(0, 8))
    found = _ranks(scene.run) if scene.run.process.poll() is None else []
    if not found:
        return None
    with suppress(ProcessLookupError):
        os.kill(draw.choice(found), signal.SIGKILL)
    return "SIGKILL of a rank"


RUNNING: dict[str, Fault] = {
    "SIGKILL": Fault(_signals(signal.SIGKILL), frozenset({-9})),
    "SIGKILL of all its processes": Fault(_signals(signal.SIGKILL, group=True), frozenset({-9})),
    "SIGTERM": Fault(_signals(signal.SIGTERM), frozenset({75, -15})),
    "SIGINT of the terminal": Fault(_signals(signal.SIGINT, group=True), frozenset({75, 130, -2})),
    "SIGTERM twice": Fault(_signals(signal.SIGTERM, signal.SIGTERM), frozenset({75, -15})),
    "disk full": Fault(disk_full, frozenset({1}), NO_SPACE, hits_all=True),
    "size of files limited": Fault(files_limited, frozenset({1}), NO_SPACE),
    "data worker killed": Fault(child_killed, frozenset({1}), "killed|ended", ("trainer.num_workers=1",)),
}
ON_RANKS: dict[str, Fault] = {
    "rank killed": Fault(rank_killed, frozenset({1}), "killed by SIGKILL|rank"),
    "SIGKILL of the run of ranks": Fault(_signals(signal.SIGKILL), frozenset({-9})),
    "SIGTERM of the run of ranks": Fault(_signals(signal.SIGTERM), frozenset({75, -15})),
}
