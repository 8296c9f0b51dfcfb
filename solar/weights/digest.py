"""The hash by which a file is known, and how files of our own folders are opened: no links, no pipes, no devices."""

import errno
import hashlib
import os
import stat
from pathlib import Path

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds: while they stay the same, nobody has written the file."""


def file_sha256(path: Path) -> str:
    """Hex digits of the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def what_it_is(status: os.stat_result) -> str | None:
    """What a path is that is neither a plain file nor a folder; `status` is that of `lstat`."""
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return (
        None
        if stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR)
        else kinds.get(stat.S_IFMT(status.st_mode), "a device")
    )


def open_plain(path: Path) -> int:
    """Descriptor for reading a plain file; no link is followed and no pipe is waited for.

    Raises `OSError`, also for what is no plain file.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"is {what_it_is(status) or 'a folder'}, expected a plain file", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # exchanged since the look
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return descriptor


def read_plain(path: Path) -> bytes:
    """Content of a plain file. Raises `OSError` as `open_plain` does."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read()


def plain_sha256(path: Path, flush: bool = False) -> tuple[Stamp, str]:
    """Stamp and hash of a plain file, read once; with `flush`, the file is also forced to the disk.

    Raises `OSError` as `open_plain` does.
    """
    with os.fdopen(open_plain(path), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if flush:
            os.fsync(file.fileno())
        return stamp(os.fstat(file.fileno())), digest


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
