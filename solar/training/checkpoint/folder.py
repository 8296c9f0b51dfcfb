"""A checkpoint on disk: whole or absent, and without pickle.

    checkpoints/step-00000120/   tensors.safetensors   state.json   manifest.json (size and sha256 of the other two)

A checkpoint is built under another name, flushed to the disk and renamed: a kill at any moment leaves the previous
checkpoint untouched. The state holds the number of steps that are done, and the manifest the id of the stage: a
checkpoint under another step's name, or in another stage's folder, is not used.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors.torch import load_file

from solar.errors import StageError
from solar.training.checkpoint.tensor_file import save_file
from solar.training.checkpoint.tree import flatten, unflatten
from solar.weights.digest import flush, open_plain, plain_sha256, read_plain
from solar.weights.strict_json import unique

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
IDENTITY = "identity"
"""Key of the manifest and of Lightning's storage options: the id of the stage that trains."""
NAME = re.compile(r"step-(\d{8,})")
"""Name of a checkpoint that a training resumes from: the number of optimizer steps that are done."""


class SafetensorsCheckpointIO(CheckpointIO):
    """Lightning's checkpoints as folders of safetensors and JSON."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises `StageError` where the disk refuses the files; earlier checkpoints stay as they are."""
        final = Path(path)
        building = final.with_name(f"{final.name}.building")
        try:
            discard(building)
            self._save(checkpoint, building, final, (storage_options or {}).get(IDENTITY))
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise StageError(
                f"{final}: cannot be saved ({error}); free some space; the same command goes on from the last one"
            ) from error

    def _save(self, checkpoint: dict[str, Any], building: Path, final: Path, identity: str | None) -> None:
        is_first = not final.parent.exists()
        building.mkdir(parents=True)
        plain, tensors = flatten(checkpoint)
        save_file(tensors, building / TENSORS)
        (building / STATE).write_text(json.dumps(plain), encoding="utf-8")
        files = {name: _fingerprint(building / name) for name in (TENSORS, STATE)}
        for name in files:
            flush(building / name)
        manifest = files if identity is None else {**files, IDENTITY: identity}
        (building / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        flush(building / MANIFEST)
        flush(building)
        discard(final)
        building.rename(final)
        flush(final.parent)
        if is_first:
            flush(final.parent.parent)  # else a power cut may take the folder of all checkpoints

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        folder = Path(path)
        if (problem := damage(folder)) is not None:
            raise StageError(f"{folder}: {problem}; remove the folder to resume from an older checkpoint")
        state = unflatten(json.loads((folder / STATE).read_text(encoding="utf-8")), load_file(folder / TENSORS))
        assert isinstance(state, dict)
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the manifest first: the rest of an interrupted removal must not count as a checkpoint."""
        folder = Path(path)
        if folder.is_dir() and not folder.is_symlink():
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.unlink(missing_ok=True)


def damage(checkpoint: Path, identity: str | None = None) -> str | None:
    """What is wrong with a checkpoint; None if every file has the size and content that the manifest lists.

    A folder with the name of a step must also hold that step, and be of the stage `identity` where both say a stage.
    """
    if checkpoint.is_symlink() or (checkpoint.exists() and not checkpoint.is_dir()):
        return "is a link" if checkpoint.is_symlink() else "is no folder"
    try:
        for name in (MANIFEST, TENSORS, STATE):
            os.close(open_plain(checkpoint / name))
        manifest = json.loads(read_plain(checkpoint / MANIFEST), object_pairs_hook=unique)
        if not isinstance(manifest, dict) or set(manifest) - {IDENTITY} != {TENSORS, STATE}:
            return f"{MANIFEST} does not list {TENSORS} and {STATE}"
        for name in (TENSORS, STATE):
            if _fingerprint(checkpoint / name) != manifest[name]:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(str(error.filename)).name} {error.strerror}"
    except (ValueError, RecursionError):
        return f"{MANIFEST} is not JSON"
    return _of_another_place(checkpoint, manifest, identity)


def _of_another_place(checkpoint: Path, manifest: dict[str, Any], identity: str | None) -> str | None:
    if identity is not None and manifest.get(IDENTITY, identity) != identity:
        return f"is a checkpoint of the stage with id {manifest[IDENTITY]}, expected {identity}"
    if named := NAME.fullmatch(checkpoint.name):
        done = json.loads(read_plain(checkpoint / STATE))["solar"]["steps_done"]
        if done != int(named[1]):
            return f"holds the state after step {done}, not {int(named[1])}"
    return None


def discard(path: Path) -> None:
    """Remove a folder with all that is in it, or a file, or a link, but not what the link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fingerprint(path: Path) -> dict[str, Any]:
    stamp, sha256 = plain_sha256(path)
    return {"bytes": stamp[2], "sha256": sha256}
