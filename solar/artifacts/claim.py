"""Who is building a folder: one process at a time, and a dead one gives way."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from solar.errors import ArtifactError

NAME = "owner.json"


def claim(folder: Path) -> None:
    """Take a folder for this process.

    The owner file appears with its content or not at all, which holds even where file locks do nothing (some network
    file systems). An owner that no longer runs on this machine is replaced; one on another machine cannot be asked.

    Raises:
        ArtifactError: another process is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, mine = folder / NAME, folder / f".{NAME}.{os.getpid()}"
    mine.write_text(json.dumps(_me()), encoding="utf-8")
    try:
        for _ in range(3):
            try:
                path.hardlink_to(mine)
                return
            except FileExistsError:
                _evict_the_dead(path)
    finally:
        mine.unlink()
    raise ArtifactError(f"{path}: another process took the folder first; wait for it, or run again")


def release(folder: Path) -> None:
    """Give a claimed folder back."""
    (folder / NAME).unlink(missing_ok=True)


def _me() -> dict[str, object]:
    return {"host": socket.gethostname(), "boot": _boot_id(), "pid": os.getpid(), "started": _started(os.getpid())}


def _evict_the_dead(path: Path) -> None:
    # The lock keeps two newcomers from removing each other's fresh claim in place of the dead one.
    with _locked(path.parent):
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            owner = {}
        if owner.get("host") not in (None, socket.gethostname()):
            raise ArtifactError(
                f"{path.parent}: process {owner.get('pid')} on {owner.get('host')} is building it; "
                f"wait for it, or delete {path} if it is gone"
            )
        alive = owner.get("boot") == _boot_id() and _started(owner.get("pid", -1)) == owner.get("started") is not None
        if alive:
            raise ArtifactError(f"{path.parent}: process {owner['pid']} is building it; wait for it to end, or stop it")
        path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot, None if there is none: tells it from a later one of its number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return _answers(pid)


def _answers(pid: int) -> str | None:
    """Without /proc: whether the process can be signalled."""
    if Path("/proc/self").exists() or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"
