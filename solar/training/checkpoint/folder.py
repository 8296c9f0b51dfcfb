"""A checkpoint on disk: whole or absent, and without pickle.

    checkpoints/step-00000120/   tensors.safetensors   state.json   manifest.json (size and sha256 of the other two)

A checkpoint is built under another name, flushed to the disk and renamed: a kill at any moment leaves the previous
checkpoint untouched.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors.torch import load_file

from solar.errors import StageError
from solar.training.checkpoint.tensor_file import save_file
from solar.training.checkpoint.tree import flatten, unflatten
from solar.weights.digest import file_sha256

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class SafetensorsCheckpointIO(CheckpointIO):
    """Lightning's checkpoints as folders of safetensors and JSON."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises `StageError` where the disk refuses the files; earlier checkpoints stay as they are."""
        final = Path(path)
        building = final.with_name(f"{final.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        try:
            self._save(checkpoint, building, final)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise StageError(
                f"{final}: cannot be saved ({error}); free some space; the same command goes on from the last one"
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
        """Remove the manifest first: the rest of an interrupted removal must not count as a checkpoint."""
        (Path(path) / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if every file has the size and content that the manifest lists."""
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


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
