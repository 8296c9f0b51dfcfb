"""A folder that appears whole or not at all."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from solar.errors import ArtifactError


@contextmanager
def published(target: Path, sources: Sequence[Path] = ()) -> Iterator[Path]:
    """A folder to build in, which becomes `target` in one step at the end; after any error nothing is left behind.

    The next process clears what a killed process left: a file beside the folder marks it as ours until the end. Nothing
    is forced to the disk.

    Raises:
        ArtifactError: the target exists, lies inside one of `sources`, cannot be made, or is being built already; or
            somebody else made the folder to build in.
    """
    refuse_existing(target)
    refuse_inside(target, sources)
    partial = target.with_name(f".{target.name}.partial")
    mark = partial.with_name(f"{partial.name}.mark")
    owner = _own(partial, target)
    try:
        try:
            _mark_as_ours(partial, mark)
            _clear(partial)
            yield partial
            refuse_existing(target)
            partial.rename(target)
            mark.unlink(missing_ok=True)
        except _NotOurs:
            raise
        except OSError as error:
            _remove(partial, mark)
            reason = error.strerror or str(error)
            raise ArtifactError(
                f"{target}: cannot be written ({reason}); free space or choose another place"
            ) from error
        except BaseException:
            _remove(partial, mark)
            raise
    finally:
        os.close(owner)


def refuse_existing(target: Path) -> None:
    """Nothing is ever overwritten, not even a broken link."""
    if os.path.lexists(target):
        raise ArtifactError(f"{target}: exists already, expected a new folder; choose another name or remove it")


def refuse_inside(target: Path, sources: Sequence[Path]) -> None:
    """A model's folder is read, never added to."""
    for source in sources:
        if target.resolve().is_relative_to(source.resolve()):
            raise ArtifactError(f"{target}: inside {source}, expected a folder of its own; choose another place")


def _own(partial: Path, target: Path) -> int:
    """Make the folder to build in and lock it. The system unlocks it when the process ends in any way."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        owner = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be made ({error.strerror}); choose another place") from error
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(owner), partial.stat())  # its last owner may have renamed it meanwhile
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        os.close(owner)
        raise ArtifactError(f"{partial}: another process is building it; wait for that process to end")
    return owner


class _NotOurs(ArtifactError):
    pass


def _mark_as_ours(partial: Path, mark: Path) -> None:
    """Raises `ArtifactError` for a folder with files that has no mark."""
    marked = mark.is_file() and not mark.is_symlink()
    if not marked and any(partial.iterdir()):
        raise _NotOurs(
            f"{partial}: holds files, and {mark.name} is not beside it, so solar did not make it; move it away"
        )
    if not marked:
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def _clear(folder: Path) -> None:
    """Remove what a killed process left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            _remove(path)
        else:
            path.unlink()


def _remove(folder: Path, mark: Path | None = None) -> None:
    from shutil import rmtree  # with its compressors it takes long to import, and is for failures

    rmtree(folder, ignore_errors=True)
    if mark is not None:
        mark.unlink(missing_ok=True)
