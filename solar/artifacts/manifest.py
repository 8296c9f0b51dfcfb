"""The description of an artifact: `manifest.json`, written last, so that its presence means complete."""

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
from solar.weights.digest import file_sha256

NAME = "manifest.json"
_PACKAGES = ("torch", "transformers", "pytorch-lightning", "tokenizers", "datasets", "numpy", "safetensors")


@dataclass(frozen=True)
class Manifest:
    """A finished stage: its configuration, inputs, metrics and files."""

    stage: str
    kind: str
    id: str
    version: int
    config: dict[str, Any]
    """All that the id is the hash of, except the inputs. References are names of the run that made the artifact."""
    inputs: dict[str, str]
    """Name of a stage that was read -> its id."""
    metrics: dict[str, Any]
    files: dict[str, dict[str, Any]]
    """Relative path -> `size` in bytes and `sha256`."""
    provenance: dict[str, Any]
    wall_seconds: float

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of an artifact folder. Raises `ArtifactError` if it cannot be read."""
        path = folder / NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error}); delete {folder} to make it again") from error

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, whole or not at all, even if the power fails."""
        write_atomically(folder / NAME, json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=True) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by one that is on the disk before it takes the name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_files(folder: Path, leave_out: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Size and hash of every file below a folder, each flushed to the disk, except the top-level names `leave_out`."""
    described = {}
    for path in sorted(folder.rglob("*")):
        top = path.relative_to(folder).parts[0]
        if path.is_file() and top != NAME and top not in leave_out:
            described[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
            flush(path)
    return described


def provenance() -> dict[str, Any]:
    """Versions and machine that make an artifact."""
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
