"""Safetensors files, a tensor at a time and without torch: an 8-byte length, a JSON header, raw bytes."""

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solar.errors import StageError

DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "float16": ("F16", 2)}
"""Our name -> the file's, and bytes a number."""

Array = NDArray[np.float32]


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Name -> `dtype`, `shape`, `data_offsets` of each tensor, and where in the file the data begins.

    Raises:
        StageError: the file is no safetensors file, or is cut short.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= total - 8:
            raise StageError(f"{path}: not a safetensors file, or cut short; fetch it again")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise StageError(f"{path}: not a safetensors file ({error}); fetch it again") from error
    header.pop("__metadata__", None)
    expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if total != expected:
        raise StageError(f"{path}: has {total:,} bytes, its header says {expected:,}; fetch it again")
    return header, 8 + length


def decode(raw: bytes, dtype: str) -> Array:
    """Numbers of a tensor's bytes, `dtype` as the file names it; exact."""
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)


def encode(values: Array, dtype: str) -> bytes:
    """Bytes of a tensor's numbers, rounded to the nearest (ties to even), `dtype` as we name it."""
    if dtype != "bfloat16":
        return values.astype(dtype).tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16).tobytes()


def write(path: Path, shapes: Mapping[str, Iterable[int]], dtype: str, tensors: Iterable[Array]) -> int:
    """Write one file from tensors in the order of `shapes`, holding one at a time; returns its number of parameters."""
    name, width = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor, shape in shapes.items():
        start, offset = offset, offset + width * prod(shape)
        header[tensor] = {"dtype": name, "shape": list(shape), "data_offsets": [start, offset]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors:
            file.write(encode(values, dtype))
        assert file.tell() == 8 + len(text) + offset
    return offset // width
