"""Open a Hugging Face folder: its configuration, and where on disk each tensor lies. No tensor is read."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from solar.errors import ArtifactError
from solar.weights.header import DTYPE_BITS, FLOAT_DTYPES, StoredTensor, read_header
from solar.weights.json_file import read_json, write_json
from solar.weights.members import check_members, member

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
UNMATERIALIZED_FILE = "unmaterialized.json"
"""Stands in place of the weights of a grown model that is stored as a plan (`solar.growth.unmaterialized`)."""
MOST_NAME_CHARACTERS = 500
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".pkl", ".gguf")


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    """By name, in the order of files and bytes."""

    @cached_property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(tensor.path for tensor in self.tensors.values()))

    @property
    def parameters(self) -> int:
        return sum(tensor.parameters for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @cached_property
    def main_dtype(self) -> str | None:
        """The number format of most floats; None without floats."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            if tensor.dtype in FLOAT_DTYPES:
                counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.parameters
        return max(counts, key=lambda dtype: counts[dtype], default=None)

    def may_be_cast(self, tensor: StoredTensor) -> bool:
        """Whether a change of the model's format includes this tensor.

        Whole numbers keep their format, and so do floats that are stored wider than most: a model stores them wide on
        purpose, such as a router's `e_score_correction_bias`.
        """
        main = self.main_dtype
        return main is not None and tensor.dtype in FLOAT_DTYPES and DTYPE_BITS[tensor.dtype] <= DTYPE_BITS[main]

    @contextmanager
    def descriptors(self) -> Iterator[dict[Path, int]]:
        """The descriptor of each weight file, for reading at any offset from any thread."""
        with ExitStack() as stack:
            opened = {}
            for path in self.files:
                opened[path] = os.open(path, os.O_RDONLY)
                stack.callback(os.close, opened[path])
            yield opened


def open_folder(folder: Path) -> ModelFolder:
    """Raises `ArtifactError` for a folder without safetensors, and for files that differ from the index."""
    config = read_config(folder)
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        for tensor in read_header(path).tensors:
            if len(tensor.name) > MOST_NAME_CHARACTERS:
                _refuse(
                    path,
                    f"{tensor.name[:40]!r}...: a name of {len(tensor.name):,} characters, expected a tensor's name",
                )
            if tensor.name in tensors:
                _refuse(path, f"{tensor.name}: also in {tensors[tensor.name].path.name}, expected once")
            tensors[tensor.name] = tensor
    if (folder / INDEX_FILE).exists():
        _check_index(folder, weight_map(folder), tensors)
    if not tensors:
        raise ArtifactError(f"{folder}: no tensor found, expected a model's weights")
    return ModelFolder(folder, config, tensors)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder, all of whose files were looked at (`check_members`).

    Raises `ArtifactError` for an adapter, and if there is no such folder.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise ArtifactError(f"{folder}: {what}, expected a Hugging Face model folder")
    if (folder / ADAPTER_FILE).exists() and not any(map(os.path.lexists, (folder / SINGLE_FILE, folder / INDEX_FILE))):
        raise ArtifactError(
            f"{folder}: holds an adapter, expected a whole model; add it to its base first (peft's merge_and_unload)"
        )
    check_members(folder)
    return read_json(member(folder, CONFIG_FILE))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: the single file, or the shards that its index names.

    Raises:
        ArtifactError: there is neither, or both; or a file is missing, no regular file, or outside the folder.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.exists() and index.exists():
        _refuse(index, f"{SINGLE_FILE} lies beside it, expected one of the two; remove the one that is out of date")
    if single.exists():
        return [member(folder, SINGLE_FILE)]
    if index.exists():
        return [member(folder, name) for name in sorted(set(weight_map(folder).values()))]
    if (folder / UNMATERIALIZED_FILE).exists():
        raise ArtifactError(f"{folder}: holds a plan instead of weights; grow it with materialize: true")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_FORMATS)
    if others:
        way_out = "convert it first: python -m solar.grow convert BASE OUT"
        raise ArtifactError(f"{folder}: {others[0]} found, expected safetensors; {way_out}")
    raise ArtifactError(f"{folder}: found neither {SINGLE_FILE} nor {INDEX_FILE}, expected a model's weights")


def weight_map(folder: Path, index: str = INDEX_FILE) -> dict[str, str]:
    """Tensor name -> file name, as the index says."""
    path = member(folder, index)
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        _refuse(path, "no weight_map of names found, expected tensor names and the files that hold them")
    return names


def write_index(folder: Path, file_of: dict[str, str], total_bytes: int) -> None:
    """The index of a model in several files; `file_of` maps tensor names to file names."""
    content = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(file_of.items()))}
    write_json(folder / INDEX_FILE, content)


def _check_index(folder: Path, listed: dict[str, str], tensors: dict[str, StoredTensor]) -> None:
    for name, file in listed.items():
        if name not in tensors or tensors[name].path.name != file:
            _refuse(folder / INDEX_FILE, f"{name}: not in {file}, where the index says it is")
    for name in tensors:
        if name not in listed:
            _refuse(tensors[name].path, f"{name}: not in the index, expected only what the index lists")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ArtifactError(f"{path}: {reason}")
