"""The description of an artifact: `manifest.json`, written last, so that its presence means complete."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from solar import __version__
from solar.artifacts.atomic import write_atomically
from solar.artifacts.listing import files_below
from solar.errors import ArtifactError, one_line
from solar.weights.digest import Stamp, flush, plain_sha256, read_plain
from solar.weights.strict_json import unique

NAME = "manifest.json"
HASHING_THREADS = 2
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
    sha256: str = field(default="", compare=False)
    """Of all other fields, as `content_sha256` spells them; empty in manifests from before this field."""

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of an artifact folder. Raises `ArtifactError` if it cannot be read, or was edited."""
        path = folder / NAME
        try:
            content = json.loads(read_plain(path), object_pairs_hook=unique)
            manifest = cls(**content)
            problem = _problem(manifest, content)
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except (ValueError, TypeError, RecursionError) as error:
            problem = f"cannot be read ({one_line(error)})"
        if problem is not None:
            raise ArtifactError(f"{path}: {problem}; delete {folder} to make it again")
        return manifest

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, whole or not at all, even if the power fails."""
        content = asdict(self)
        content["sha256"] = content_sha256(content)
        write_atomically(folder / NAME, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=True) + "\n")


def content_sha256(content: dict[str, Any]) -> str:
    """Hash of a manifest's fields without `sha256`: of JSON with sorted keys, no spaces, and ASCII only."""
    fields = json.loads(json.dumps({name: value for name, value in content.items() if name != "sha256"}))
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _problem(manifest: Manifest, content: dict[str, Any]) -> str | None:
    if manifest.sha256 != "" and manifest.sha256 != content_sha256(content):
        return "was changed since it was written: its own sha256 is another"
    for name, value in (("config", dict), ("inputs", dict), ("metrics", dict), ("files", dict), ("id", str)):
        if not isinstance(content[name], value):
            return f"{name} is no {'text' if value is str else 'table'}"
    for name, facts in manifest.files.items():
        parts = PurePosixPath(name).parts
        if ".." in parts or name.startswith("/") or "\0" in name:
            return f"names the file {name!r}, which lies outside the folder"
        if not isinstance(facts, dict) or {"size", "sha256"} - set(facts):
            return f"has no size or sha256 of {name}"
    return None


def describe_files(
    folder: Path, leave_out: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[Stamp, str]]]:
    """Size and hash of every file below a folder, flushed to the disk, except the top-level names `leave_out`.

    Also the stamp and hash of each file as it was read. Raises `ArtifactError` for a link, a pipe or a device.
    """
    names = list(files_below(folder, (NAME, *leave_out)))
    with ThreadPoolExecutor(HASHING_THREADS) as threads:
        hashes = threads.map(lambda name: plain_sha256(folder / name, flush=True), names)
        read = dict(zip(names, hashes, strict=True))
    for place in {parent for name in names for parent in PurePosixPath(name).parents}:
        flush(folder / place)  # in a folder that is not flushed, a file may have lost its name after a power cut
    return {name: {"size": stamp[2], "sha256": sha256} for name, (stamp, sha256) in read.items()}, read


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
