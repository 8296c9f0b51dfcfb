"""What tells this process from every other: host, boot, PID namespace, number and time of start."""

import os
import socket
from pathlib import Path


def describe() -> dict[str, object]:
    """This process, as JSON."""
    return {
        "host": socket.gethostname(),
        "boot": boot_id(),
        "namespace": pid_namespace(),
        "pid": os.getpid(),
        "started": started(os.getpid()),
    }


def boot_id() -> str:
    """Random at each start of the machine; empty where the system has none."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def pid_namespace() -> str:
    """Where process numbers of this process mean something; empty where the system has no namespaces."""
    path = Path("/proc/self/ns/pid")
    return str(path.readlink()) if path.is_symlink() else ""


def started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if it does not run, or hides, or the system has no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def runs(pid: object, since: object) -> bool | None:
    """Whether the process of this number that started `since` runs; None where the system does not show it.

    Numbers are reused, times of start are not. Some systems show a process only to its own user.
    """
    if not isinstance(pid, int) or pid <= 0:
        return False
    if (start := started(pid)) is not None:
        return start == since
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return None if Path("/proc/self").exists() else True
