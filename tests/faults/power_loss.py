"""What a power failure would take: names that reach the disk before the bytes behind them, or never."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def power_may_fail(monkeypatch: pytest.MonkeyPatch, leave_out: frozenset[str] = frozenset()) -> Iterator[list[str]]:
    """Gives a list that fills with the files that were renamed, or whose folder was, before they were on the disk.

    At the end, each folder that got a new name must have been flushed after it. Files in `leave_out`, or below such a
    folder, do not count.
    """
    synced: dict[int, bytes] = {}
    lost: list[str] = []
    unflushed: set[Path] = set()
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def flushed(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            unflushed.difference_update({path for path in unflushed if os.path.samestat(path.stat(), status)})
        else:
            synced[status.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        fsync(descriptor)

    def checked(move):
        def moved(source, target, **keywords):
            below = [Path(source)] if Path(source).is_file() else [*Path(source).rglob("*")]
            files = [path for path in below if path.is_file() and not leave_out & {*path.parts}]
            lost.extend(str(path) for path in files if synced.get(path.stat().st_ino) != path.read_bytes())
            unflushed.add(Path(target).parent)
            move(source, target, **keywords)

        return moved

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", checked(rename))
    monkeypatch.setattr(os, "replace", checked(replace))
    yield lost
    assert not unflushed, f"a power failure takes back the new name in {unflushed}"
