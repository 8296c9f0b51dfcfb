"""Locks of files. Some network file systems ignore them, so that no result may depend on them."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def lock(descriptor: int, path: Path) -> bool:
    """Lock a file as long as this process lives; False where the file system ignores locks."""
    if not try_lock(descriptor):
        return False
    with path.open("r+b") as other:
        return not try_lock(other.fileno())


def try_lock(descriptor: int) -> bool:
    """Lock a file without waiting; False where another has it, or where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.ENOLCK, errno.ENOTSUP, errno.EBADF):
            return False
        raise
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for the folder's lock and hold it; no lock where the file system has none."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
