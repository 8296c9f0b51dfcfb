"""Where each tensor of a Hugging Face folder lies: nothing but the headers of its safetensors files is read."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from solar.errors import ArtifactError

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """One tensor: what it is, and which bytes of which file hold it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    """From the start of the file."""
    size_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder: `headers` are the first bytes of each weight file, up to its first tensor."""

    folder: Path
    config: dict[str, Any] = field(repr=False)
    headers: dict[str, bytes] = field(repr=False)
    sizes_bytes: dict[str, int] = field(repr=False)
    tensors: dict[str, Tensor] = field(repr=False)

    @contextmanager
    def opened(self) -> Iterator[dict[str, int]]:
        """The descriptor of each weight file, for reading at any offset from any thread."""
        with ExitStack() as stack:
            descriptors = {}
            for file in self.headers:
                descriptors[file] = os.open(self.folder / file, os.O_RDONLY)
                stack.callback(os.close, descriptors[file])
            yield descriptors


def read_checkpoint(folder: Path) -> Checkpoint:
    """Look at a model. Raises ArtifactError where something is missing, damaged or contradictory."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not found"
        raise ArtifactError(f"{folder}: {found}, expected a Hugging Face model folder on this disk")
    if (folder / "adapter_config.json").exists():
        raise ArtifactError(
            f"{folder}: holds an adapter, expected a whole model; add it to its base first (peft's merge_and_unload)"
        )
    config = read_json(folder / "config.json")
    headers: dict[str, bytes] = {}
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        headers[file] = read_header(folder / file)
        for tensor in tensors_of(headers[file], file):
            if tensor.name in tensors:
                raise ArtifactError(
                    f"{folder / file}: {tensor.name} is also in {tensors[tensor.name].file}, expected it once"
                )
            tensors[tensor.name] = tensor
    check_index(folder, tensors)
    sizes = {file: (folder / file).stat().st_size for file in headers}
    return Checkpoint(folder, config, headers, sizes, tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: not found, expected a Hugging Face model folder") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path}: {error}, expected a JSON object") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: found {type(value).__name__}, expected a JSON object")
    return value


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold the weights: those of the index, or the only one there is."""
    if (folder / INDEX).exists():
        files = sorted(set(weight_map(folder).values()))
        outside = [file for file in files if Path(file).name != file]
        if outside:
            raise ArtifactError(f"{folder / INDEX}: found {outside[0]!r}, expected names of files in this folder")
        return files
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ArtifactError(
            f"{folder}: found {len(files)} safetensors files and no {INDEX}, expected one file or an index; "
            "convert other formats to safetensors first"
        )
    return files


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> file, as the index says."""
    mapping = read_json(folder / INDEX).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(file, str) for file in mapping.values()):
        raise ArtifactError(f"{folder / INDEX}: no usable weight_map, expected tensor name -> file")
    return mapping


def check_index(folder: Path, tensors: dict[str, Tensor]) -> None:
    """The index, where there is one, must say what the files hold."""
    if not (folder / INDEX).exists():
        return
    said, held = weight_map(folder), {name: tensor.file for name, tensor in tensors.items()}
    for name in sorted(said.keys() | held.keys()):
        if said.get(name) != held.get(name):
            raise ArtifactError(
                f"{folder / INDEX}: {name} in {said.get(name, 'no file')}, but the files have it in "
                f"{held.get(name, 'none')}; expected the same"
            )


def read_header(path: Path) -> bytes:
    """The 8 bytes of length and the JSON that a safetensors file starts with, after the format's own checks."""
    try:
        with safe_open(path, framework="numpy"):  # refuses overlaps, holes, lengths that do not add up
            pass
        with path.open("rb") as file:
            length = file.read(8)
            return length + file.read(int.from_bytes(length, "little"))
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: {error}, expected a whole safetensors file; download or save it again") from None


def tensors_of(header: bytes, file: str) -> Iterator[Tensor]:
    """The tensors a header names."""
    for name, entry in json.loads(header[8:]).items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            yield Tensor(name, entry["dtype"], tuple(entry["shape"]), file, len(header) + start, stop - start)
