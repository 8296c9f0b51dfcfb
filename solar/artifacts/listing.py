"""Files of a folder in the store. No link is followed: a planted link must not lead a write or a removal elsewhere."""

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from solar.errors import ArtifactError
from solar.weights.digest import what_it_is


def files_below(folder: Path, leave_out: Collection[str] = ()) -> dict[str, os.stat_result]:
    """Relative path -> status of every file, in order of the paths; top-level names in `leave_out` are left out.

    Raises `ArtifactError` for a link, a pipe or a device.
    """
    found = {}
    for name, status in _walk(folder, "", leave_out):
        if (kind := what_it_is(status)) is not None:
            raise ArtifactError(f"{folder / name}: is {kind}, expected a plain file; remove it")
        found[name] = status
    return dict(sorted(found.items()))


def _walk(folder: Path, prefix: str, leave_out: Collection[str]) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in leave_out:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", ())
            else:
                yield prefix + entry.name, entry.stat(follow_symlinks=False)


def is_real_folder(path: Path) -> bool:
    """Whether a path is a folder, and not a link to a folder."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def refuse_unreal_folder(path: Path) -> None:
    """Raises `ArtifactError` for a link, or anything else that is there in place of a folder."""
    if os.path.lexists(path) and not is_real_folder(path):
        found = what_it_is(path.lstat()) or "a file"
        raise ArtifactError(f"{path}: is {found}, expected a folder; solar follows no links in its store; remove it")


def discard(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link, but not what the link points to."""
    if is_real_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
