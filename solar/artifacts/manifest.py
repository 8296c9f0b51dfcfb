"""What a finished stage says of itself: `manifest.json`, written last, so that its presence means complete."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from solar import __version__
from solar.errors import ArtifactError

NAME = "manifest.json"
_PACKAGES = ("torch", "transformers", "pytorch-lightning", "tokenizers", "datasets", "numpy", "safetensors")


@dataclass(frozen=True)
class Manifest:
    """A stage, what it was told, what it read, and what it left."""

    stage: str
    kind: str
    id: str
    version: int
    config: dict[str, Any]
    """Everything that the id is the hash of, except the inputs; references by the names of the run that made it."""
    inputs: dict[str, str]
    """Stage name -> id of what was read."""
    metrics: dict[str, Any]
    files: dict[str, dict[str, Any]]
    """Relative path -> `size` in bytes and `sha256`."""
    provenance: dict[str, Any]
    wall_seconds: float

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises `ArtifactError` if it is no manifest."""
        path = folder / NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error}); delete {folder} to make it again") from error

    def write(self, folder: Path) -> None:
        """Appears whole or not at all, even if the power fails."""
        write_atomically(folder / NAME, json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=True) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a new one that is on the disk before it has the name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_files(folder: Path, leave_out: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Size and hash of every file below a folder, each synced to the disk; but for `leave_out`, names at its top."""
    described = {}
    for path in sorted(folder.rglob("*")):
        top = path.relative_to(folder).parts[0]
        if path.is_file() and top != NAME and top not in leave_out:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            described[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    return described


def provenance() -> dict[str, Any]:
    """The software and machine that make an artifact."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "solar": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "platform": f"{sys.platform} {platform.machine()}",
        "cpus": os.cpu_count(),
    }
