"""Open a Hugging Face folder: its configuration, and where on disk each tensor lies. No tensor is read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from solar.errors import ArtifactError
from solar.weights.header import TensorEntry, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
MAX_JSON_BYTES = 200_000_000


@dataclass(frozen=True)
class StoredTensor:
    """A tensor and the file that holds it."""

    path: Path
    entry: TensorEntry

    @property
    def name(self) -> str:
        return self.entry.name


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    """By name; in the order of files and bytes."""

    @cached_property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(tensor.path for tensor in self.tensors.values()))

    @property
    def parameters(self) -> int:
        return sum(tensor.entry.parameters for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        return sum(tensor.entry.nbytes for tensor in self.tensors.values())


def open_checkpoint(folder: Path) -> Checkpoint:
    """Raises `ArtifactError` for a folder without safetensors, and for files that are not what the index says."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder, expected a Hugging Face model folder")
    config = read_json(member(folder, CONFIG_FILE))
    tensors: dict[str, StoredTensor] = {}
    for path in _weight_files(folder):
        for entry in read_header(path).tensors:
            if entry.name in tensors:
                _refuse(path, f"{entry.name}: also in {tensors[entry.name].path.name}, expected once")
            tensors[entry.name] = StoredTensor(path, entry)
    _check_index(folder, tensors)
    if not tensors:
        raise ArtifactError(f"{folder}: no tensor found, expected a model's weights")
    return Checkpoint(folder, config, tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises `ArtifactError` if it is none, or far too long to be one of ours."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        _refuse(path, f"{size} bytes found, expected at most {MAX_JSON_BYTES}")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        _refuse(path, f"not valid JSON ({error})")
    if not isinstance(content, dict):
        _refuse(path, f"{type(content).__name__} found, expected an object")
    return content


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.exists() and index.exists():
        _refuse(index, f"{SINGLE_FILE} lies beside it, expected one of the two; remove the one that is out of date")
    if single.exists():
        return [member(folder, SINGLE_FILE)]
    if index.exists():
        return [member(folder, name) for name in sorted(set(_weight_map(folder).values()))]
    if (folder / "unmaterialized.json").exists():
        raise ArtifactError(f"{folder}: holds a plan instead of weights; grow it with materialize: true")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
    if others:
        way_out = "convert it first: python -m solar.grow convert BASE OUT"
        raise ArtifactError(f"{folder}: {others[0]} found, expected safetensors; {way_out}")
    raise ArtifactError(f"{folder}: found neither {SINGLE_FILE} nor {INDEX_FILE}, expected a model's weights")


def _weight_map(folder: Path) -> dict[str, str]:
    path = member(folder, INDEX_FILE)
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        _refuse(path, "no weight_map of names found, expected tensor names and the files that hold them")
    return weight_map


def _check_index(folder: Path, tensors: dict[str, StoredTensor]) -> None:
    if not (folder / INDEX_FILE).exists():
        return
    weight_map = _weight_map(folder)
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].path.name != file:
            _refuse(folder / INDEX_FILE, f"{name}: not in {file}, where the index says it is")
    for name in _without(tensors, weight_map):
        _refuse(tensors[name].path, f"{name}: not in the index, expected only what the index lists")


def _without(tensors: dict[str, StoredTensor], weight_map: dict[str, str]) -> Iterator[str]:
    return (name for name in tensors if name not in weight_map)


def member(folder: Path, name: str) -> Path:
    """A regular file directly in the folder. A link may not leave it, but for the store of a Hugging Face cache."""
    path = folder / name
    if not name or name != Path(name).name or any(letter in name for letter in "/\\\0") or name in (".", ".."):
        raise ArtifactError(f"{folder / INDEX_FILE}: file name {name!r} found, expected a plain name in this folder")
    if not path.exists():
        _refuse(path, "no such file")
    target = path.resolve()
    roots = [folder.resolve(), *_cache_store(folder.resolve())]
    if not any(target.is_relative_to(root) for root in roots):
        _refuse(path, f"a link to {target}, outside the folder; copy the file here if you trust it")
    if not target.is_file():
        _refuse(path, "not a regular file")
    return path


def _cache_store(folder: Path) -> list[Path]:
    """`blobs` of the Hugging Face cache, where the folder is one of its snapshots."""
    store = folder.parent.parent / "blobs"
    return [store] if folder.parent.name == "snapshots" and store.is_dir() else []


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ArtifactError(f"{path}: {reason}")
