"""Checkpoints that are whole or absent, and hold no pickle: safetensors, JSON, and a manifest written last.

    checkpoints/step-00000120/   tensors.safetensors   state.json   manifest.json (size and sha256 of the other two)

A checkpoint is built under another name, flushed to the disk and renamed, so a kill at any moment leaves the one
before it untouched.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors.torch import load_file

from solar.errors import StageError
from solar.training.checkpoint.tensor_file import save_file
from solar.training.checkpoint.tree import flatten, unflatten

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class SafetensorsCheckpointIO(CheckpointIO):
    """Lightning's checkpoints as directories of safetensors and JSON."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises `StageError` where the disk does not take it; what was saved before stays as it is."""
        final = Path(path)
        building = final.with_name(f"{final.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        try:
            self._save(checkpoint, building, final)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise StageError(
                f"{final}: cannot be saved ({error}); free some space, and the same command goes on from the last one"
            ) from error

    def _save(self, checkpoint: dict[str, Any], building: Path, final: Path) -> None:
        building.mkdir(parents=True)
        plain, tensors = flatten(checkpoint)
        save_file(tensors, building / TENSORS)
        (building / STATE).write_text(json.dumps(plain), encoding="utf-8")
        files = {name: _fingerprint(building / name) for name in (TENSORS, STATE)}
        for name in files:
            _flush(building / name)
        (building / MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")
        _flush(building / MANIFEST)
        _flush(building)
        if final.is_dir() and not final.is_symlink():
            shutil.rmtree(final)
        else:
            final.unlink(missing_ok=True)
        building.rename(final)
        _flush(final.parent)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        folder = Path(path)
        if (problem := damage(folder)) is not None:
            raise StageError(f"{folder}: {problem}; remove the folder to resume from an older checkpoint")
        state = unflatten(json.loads((folder / STATE).read_text(encoding="utf-8")), load_file(folder / TENSORS))
        assert isinstance(state, dict)
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """The manifest goes first: what is left of a removal that is cut short is not a checkpoint."""
        (Path(path) / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Points:
    """Steps whose checkpoints a training may be rolled back to: `first`, and every `every` steps from there on."""

    first: int
    every: int
    after: int
    """Bad steps in a row that bring it back."""

    def is_one(self, step: int) -> bool:
        return (step - self.first) % self.every == 0

    def oldest_wanted(self, step: int) -> int:
        """The oldest that any step from `step` on can be rolled back to.

        >>> Points(first=8, every=5, after=3).oldest_wanted(15), Points(first=8, every=5, after=3).oldest_wanted(16)
        (8, 13)
        """
        return self.first + max(0, step - self.after - self.first) // self.every * self.every


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps lies."""
    return folder / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """
    >>> step_of(checkpoint_path(Path("checkpoints"), 120))
    120
    """
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a folder, damaged ones too, oldest first."""
    named = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal() and path.is_dir()]
    return sorted(named, key=step_of)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None, if every file is there with the size and content it was written with."""
    for name in (MANIFEST, TENSORS, STATE):
        path = checkpoint / name
        if path.is_symlink() or not path.is_file():
            return f"{name} is missing"
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        return f"{MANIFEST} is not JSON"
    if not isinstance(manifest, dict) or set(manifest) != {TENSORS, STATE}:
        return f"{MANIFEST} does not list {TENSORS} and {STATE}"
    for name, expected in manifest.items():
        if _fingerprint(checkpoint / name) != expected:
            return f"{name} is not what was written"
    return None


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to resume from, and a line on each newer one that is damaged."""
    passed_over: list[str] = []
    for path in reversed(checkpoints(folder)):
        problem = damage(path)
        if problem is None:
            return path, passed_over
        passed_over.append(f"{path}: {problem}; falling back to an older checkpoint, if there is one")
    return None, passed_over


def prune(folder: Path, keep: int, points: Points | None = None, saved_step: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints, and what cut-short savings left behind.

    `saved_step`: what was saved last; later ones are damaged or undone, and would push out the only whole one.
    Of the older ones, `points` stay that the oldest of these may still be rolled back to after a restart.
    """
    found = checkpoints(folder)
    for path in [path for path in found if saved_step is not None and step_of(path) > saved_step]:
        SafetensorsCheckpointIO().remove_checkpoint(path)
        found.remove(path)
    for path in found[:-keep]:
        step, oldest_kept = step_of(path), step_of(found[-keep:][0])
        if points is None or not points.is_one(step) or step < points.oldest_wanted(oldest_kept):
            SafetensorsCheckpointIO().remove_checkpoint(path)
    for path in folder.glob("step-*.building"):
        shutil.rmtree(path, ignore_errors=True)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
