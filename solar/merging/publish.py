"""A folder that appears whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from solar.errors import ArtifactError


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """Build a folder beside `target` and give it that name at the end; after an error nothing is left.

    What a killed process left is cleared by the next one. Raises ArtifactError if `target` exists or is being built.
    Power loss is not this function's matter: nothing is forced to the disk.
    """
    refuse_existing(target)
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    owner = os.open(partial, os.O_RDONLY)
    try:
        lock(owner, partial)
        try:
            clear(partial)
            yield partial
            refuse_existing(target)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial)
            raise
    finally:
        os.close(owner)


def refuse_existing(target: Path) -> None:
    """Nothing is ever overwritten."""
    if target.exists():
        raise ArtifactError(f"{target}: exists, expected a new folder; remove it or choose another name")


def refuse_inside(target: Path, models: Sequence[Path]) -> None:
    """A model's folder is read, never added to."""
    for model in models:
        if target.resolve().is_relative_to(model.resolve()):
            raise ArtifactError(f"{target}: inside {model}, expected a folder of its own; choose another place")


def lock(owner: int, partial: Path) -> None:
    """Own the folder until the descriptor is closed, which the system does for a process that dies."""
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(owner), partial.stat())  # not so if its last owner renamed it just now
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        raise ArtifactError(f"{partial}: being built by another process, expected it free; wait for that one")


def clear(folder: Path) -> None:
    """Remove what a killed process left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
