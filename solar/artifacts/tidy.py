"""What crashes leave in a store: found, and removed where solar made it and no process uses it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from solar.artifacts import claim
from solar.artifacts.atomic import left_by_writers
from solar.artifacts.listing import discard, is_real_folder, refuse_unreal_folder
from solar.artifacts.locks import locked
from solar.artifacts.manifest import NAME
from solar.artifacts.reading import CHECKPOINTS, read_artifact
from solar.artifacts.store import PARTIAL, Store, remove, resumable
from solar.errors import ArtifactError, ArtifactInUse


@dataclass(frozen=True)
class Litter:
    """A path below `paths.root` that no run needs, or that a person should look at."""

    path: Path
    what: str
    removable: bool
    """Whether solar made it, and can make it again."""


def remove_dead_attempts(store: Store) -> None:
    """Remove the unfinished folders of processes that have ended, except those with checkpoints.

    Also checkpoints and claims in finished artifacts: they are left by a process that was killed right after it
    published.
    """
    for folder in store.root.glob("*-*"):
        if folder.name.endswith(PARTIAL) and _is_dead_attempt(folder):
            _remove_dead_attempt(store, folder)
        for path in _left_in_finished(folder):
            with suppress(PermissionError):
                discard(path)


def litter(root: Path) -> list[Litter]:
    """Everything below `paths.root` that `python -m solar.artifacts gc` speaks of."""
    artifacts = root / "artifacts"
    folders = sorted(artifacts.iterdir()) if artifacts.is_dir() else []
    places = [root, artifacts, *filter(is_real_folder, [*folders, *root.glob("runs/*/*")])]
    found = [
        Litter(path, "left by a write that was killed", True) for place in places for path in left_by_writers(place)
    ]
    return [*found, *(item for folder in folders for item in _of_folder(folder))]


def remove_litter(root: Path, item: Litter) -> bool:
    """Remove one item; False if a process has taken it meanwhile."""
    if item.path.name.endswith(PARTIAL):
        _remove_dead_attempt(Store(root / "artifacts"), item.path)
    else:
        discard(item.path)
    return not item.path.exists()


def _of_folder(folder: Path) -> Iterator[Litter]:
    try:
        refuse_unreal_folder(folder)
        if folder.name.endswith(PARTIAL):
            claim.refuse_live_owner(folder)
            yield _attempt(folder)
        else:
            read_artifact(folder, folder.name)
            yield from (Litter(path, "left in a finished artifact", True) for path in _left_in_finished(folder))
    except ArtifactInUse:
        return
    except (ArtifactError, PermissionError) as error:
        yield Litter(folder, str(error).removeprefix(f"{folder.name}: ").removeprefix(f"{folder}: "), False)


def _attempt(partial: Path) -> Litter:
    """What an unfinished folder is that no process builds."""
    if resumable(partial):
        count = sum(1 for _ in (partial / CHECKPOINTS).iterdir())
        return Litter(partial, f"unfinished, with {count} files or folders in {CHECKPOINTS}: its stage resumes", False)
    if _is_dead_attempt(partial):
        return Litter(partial, "left by a run that was killed before its first checkpoint", True)
    return Litter(partial, f"holds no {claim.NAME}: solar did not make it", False)


def _left_in_finished(folder: Path) -> list[Path]:
    if folder.name.endswith(PARTIAL) or not is_real_folder(folder) or not (folder / NAME).exists():
        return []
    try:
        claim.refuse_live_owner(folder)
    except (ArtifactError, PermissionError):
        return []
    return [path for path in (folder / CHECKPOINTS, folder / claim.NAME) if os.path.lexists(path)]


def _is_dead_attempt(partial: Path) -> bool:
    """Whether an owner file names a process that has ended, and nothing is there to resume from."""
    if not is_real_folder(partial) or resumable(partial):
        return False
    try:
        if not (partial / claim.NAME).exists():
            return not any(partial.iterdir())
        claim.refuse_live_owner(partial)
    except (ArtifactError, PermissionError):
        return False
    return True


def _remove_dead_attempt(store: Store, partial: Path) -> None:
    with locked(store.root), suppress(ArtifactError, PermissionError):
        claim.claim(partial)
        remove(partial)
