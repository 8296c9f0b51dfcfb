"""Turn a folder of .bin weights into safetensors. Only tensors are unpickled (`weights_only`)."""

import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from solar.errors import ArtifactError
from solar.growth.process import answer
from solar.weights.folder import CONFIG_FILE, SINGLE_FILE, weight_map, write_index
from solar.weights.json_file import read_json, write_json
from solar.weights.members import member
from solar.weights.publish import published
from solar.weights.travelling import copy_travelling_files

_SINGLE_BIN = "pytorch_model.bin"
_BIN_INDEX = "pytorch_model.bin.index.json"


def convert(source: Path, target: Path) -> dict[str, int]:
    """Write the new folder `target`, with a file for each .bin file.

    Raises `ArtifactError` for a file that holds anything except named tensors.
    """
    names = _bin_files(source)
    count = size = 0
    file_of: dict[str, str] = {}
    with published(target, [source]) as partial:
        for i, name in enumerate(names, start=1):
            tensors = _distinct(_load(member(source, name)))
            file = SINGLE_FILE if len(names) == 1 else f"model-{i:05d}-of-{len(names):05d}.safetensors"
            save_file(tensors, partial / file, metadata={"format": "pt"})
            if twice := file_of.keys() & tensors.keys():
                raise ArtifactError(f"{source / name}: {min(twice)}: also in another file, expected once")
            file_of |= dict.fromkeys(tensors, file)
            count, size = count + len(tensors), size + sum(tensor.nbytes for tensor in tensors.values())
        if len(names) > 1:
            write_index(partial, file_of, size)
        write_json(partial / CONFIG_FILE, read_json(member(source, CONFIG_FILE)))
        copy_travelling_files(source, partial)
    return {"tensors": count, "bytes": size}


def _bin_files(source: Path) -> list[str]:
    if (source / _SINGLE_BIN).exists():
        return [_SINGLE_BIN]
    if not (source / _BIN_INDEX).exists():
        raise ArtifactError(f"{source}: found neither {_SINGLE_BIN} nor {_BIN_INDEX}, expected weights to convert")
    return sorted(set(weight_map(source, _BIN_INDEX).values()))


def _load(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path}: more than tensors found, or damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ArtifactError(f"{path}: no dictionary of named tensors found, expected a model's weights")
    return content


def _distinct(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, each once: where two names share memory (tied weights), the head is dropped."""
    seen: set[tuple[object, ...]] = set()
    distinct = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: ("head" in item[0], item[0])):
        key = (tensor.data_ptr(), tensor.storage_offset(), tensor.shape)
        if tensor.numel() == 0 or key not in seen:
            distinct[name] = tensor.contiguous().clone()
        seen.add(key)
    return distinct


def _work(request: dict[str, Any]) -> dict[str, int]:
    return convert(Path(request["source"]), Path(request["target"]))


if __name__ == "__main__":
    sys.exit(answer(_work))
