"""Finds the processes of a run on several ranks, to kill one of them."""

import os
import signal
import time
from pathlib import Path


def kill_rank(run: int, rank: int, seconds: float = 600) -> None:
    """SIGKILL to the process that is `rank` below the process `run`, as soon as there is one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            if _is_rank(process, rank) and run in _ancestors(process):
                os.kill(int(process.name), signal.SIGKILL)
                return
        time.sleep(0.02)
    raise AssertionError(f"no rank {rank} below process {run}")


def _is_rank(process: Path, rank: int) -> bool:
    """Whether torchrun started the process as this rank."""
    try:
        return f"RANK={rank}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _ancestors(process: Path) -> list[int]:
    found = [int(process.name)]
    try:
        while found[-1] > 1:
            stat = Path(f"/proc/{found[-1]}/stat").read_text(encoding="utf-8")
            found.append(int(stat.rpartition(")")[2].split()[1]))
    except OSError:
        return found
    return found
