"""Runs of solar that are started, watched and judged from outside."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.pipeline.conftest import command

SMALLER = [
    "stages.docs.max_bytes=60000",
    "stages.base.duration=12 steps",
    "stages.pretrain.duration=4 steps",
    "stages.sft.duration=4 steps",
    *(f"stages.{stage}.max_valid_rows=4" for stage in ("base", "pretrain", "sft", "dpo_a")),
    "trainer.checkpoint_every_seconds=0.1",
]
BETAS = ("0.1", "0.3")
SWEEP = ["until=dpo_a", "--multirun", f"stages.dpo_a.beta={','.join(BETAS)}"]
RANKS = ["until=base", "trainer.devices=2", "trainer.strategy=ddp"]
GROUP = 65500
"""Of the users who share the store, and of all files in it."""
MARK = "SOLAR_SOAK"
"""Environment variable that all processes of a run inherit."""
_AS_ANOTHER = ["--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
"""Another user may read everything, because Python may lie in a home folder; what he may write is what is tested."""


@dataclass(frozen=True)
class Run:
    """A run of solar, and the files that take its output."""

    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path
    words: list[str]

    def lines(self) -> list[str]:
        """Its error lines."""
        return [line for line in self._text(self.err).splitlines() if line.startswith("error: ")]

    def planned(self) -> bool:
        """Whether the imports are over: Python itself answers a signal before that."""
        return "to run: " in self._text(self.out)

    def traceback(self) -> str:
        """Where and what, if standard error shows a traceback; else empty."""
        _, found, rest = self._text(self.err).partition("Traceback (most recent call last)")
        return rest[-2000:] if found else ""

    @staticmethod
    def _text(path: Path) -> str:
        return path.read_text(encoding="utf-8", errors="replace")


@dataclass
class Launcher:
    """Starts runs on one store."""

    root: Path
    logs: Path
    """Not on the disk that is filled."""
    count: int = field(default=0)

    def start(self, words: Sequence[str], user: int = 0, clock_jump_seconds: float = 0.0) -> Run:
        self.count += 1
        line = command(self.root, *SMALLER, *words)
        if clock_jump_seconds:
            line[1:3] = ["-m", "tests.faults.soak.clock", str(clock_jump_seconds)]
        home = self.logs / f"home-{user}"
        home.mkdir(parents=True, exist_ok=True)
        if user:
            os.chown(home, user, GROUP)
            line = ["setpriv", f"--reuid={user}", f"--regid={GROUP}", *_AS_ANOTHER, "--", *line]
        variables = {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1", MARK: str(self.logs)}
        if user:
            variables["HOME"] = str(home)
        out, err = (self.logs / f"{self.count:04d}.{name}" for name in ("out", "err"))
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                line,
                stdout=to_out,
                stderr=to_err,
                env={**os.environ, **variables},
                start_new_session=True,
                cwd=self.logs,
            )
        return Run(process, out, err, list(words))

    def processes(self) -> list[int]:
        """All living processes of this launcher's runs."""
        mark = f"{MARK}={self.logs}".encode()
        return [pid for pid in living() if mark in environment(pid)]

    def end_all(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def living() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment(pid: int) -> list[bytes]:
    """`NAME=value` of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def children(pid: int) -> list[int]:
    """Processes that a process has forked, and that run the same program."""
    found = []
    for other in living():
        with suppress(OSError, IndexError):
            parent = int(Path(f"/proc/{other}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
            if parent == pid and _words(other) == _words(pid):
                found.append(other)
    return found


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def until(condition: Callable[[], bool], run: Run, limit_seconds: float) -> bool:
    """Wait for a condition; False if the run ends first, or the time does."""
    end = time.monotonic() + limit_seconds
    while run.process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def others_may_write(folder: Path) -> bool:
    """Whether this process may start others as other users, and these get to the folder."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    asks = f"import os; exit(not os.access({str(folder)!r}, os.W_OK))"
    probe = ["setpriv", "--reuid=65533", f"--regid={GROUP}", *_AS_ANOTHER, "--", sys.executable, "-c", asks]
    return subprocess.run(probe, capture_output=True).returncode == 0


def named_folder(line: str) -> Path | None:
    """The folder that an error line asks the user to delete.

    >>> named_folder("error: base: /s/base-0/a: is missing; delete /s/base-0 to make it again")
    PosixPath('/s/base-0')
    """
    found = re.search(r"delete (/\S+) to make it again|(/\S+): has no manifest\.json", line)
    return Path(found[1] or found[2]) if found else None
