"""The disk of the soak: one of its own where mounting is allowed, so that it can be full."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.soak.runs import GROUP

SIZE = "256m"
BALLAST = "ballast"


@contextmanager
def disk_at(folder: Path) -> Iterator[bool]:
    """Make `folder`; yields whether it is a disk of its own. The group may write what is made meanwhile."""
    umask = os.umask(0o002)
    folder.mkdir(parents=True)
    mounted = shutil.which("mount") is not None and _ran(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    )
    if os.geteuid() == 0:
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2775)
    try:
        yield mounted
    finally:
        os.umask(umask)
        if mounted:
            _ran(["umount", "--lazy", str(folder)])


def _ran(line: list[str]) -> bool:
    return subprocess.run(line, capture_output=True).returncode == 0


def fill(disk: Path, leave_bytes: int) -> None:
    """Leave so little space on a disk."""
    with (disk / BALLAST).open("ab") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, max(shutil.disk_usage(disk).free - leave_bytes, 1))


def empty(disk: Path) -> None:
    """Take the ballast away."""
    (disk / BALLAST).unlink(missing_ok=True)
