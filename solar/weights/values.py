"""Values of tensors on disk: read a slice at a time, written to a file a tensor at a time."""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solar.weights.header import DTYPE_BITS, StoredTensor, encode_header
from solar.weights.numbers import Wide, decode, encode

METADATA = {"format": "pt"}
"""What `transformers` asks to find in a file's header."""


def read_values(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.float64]:
    """Elements `start` to `stop` of a tensor of floats, exactly."""
    return decode(read_bytes(tensor, start, stop), tensor.dtype).astype(np.float64)


def read_bytes(tensor: StoredTensor, start: int, stop: int) -> bytes:
    """Stored bytes of elements `start` to `stop`."""
    width = DTYPE_BITS[tensor.dtype] // 8
    with tensor.path.open("rb") as file:
        file.seek(tensor.start + start * width)
        return file.read((stop - start) * width)


def header_entries(dtypes: Mapping[str, str], shapes: Mapping[str, Iterable[int]]) -> dict[str, dict[str, Any]]:
    """Tensors laid end to end: name -> dtype, shape, data_offsets."""
    entries: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, shape in shapes.items():
        start, offset = offset, offset + prod(shape) * DTYPE_BITS[dtypes[name]] // 8
        entries[name] = {"dtype": dtypes[name], "shape": list(shape), "data_offsets": [start, offset]}
    return entries


def write_tensors(
    path: Path, dtypes: Mapping[str, str], shapes: Mapping[str, Iterable[int]], tensors: Iterable[Wide | bytes]
) -> int:
    """Write one file from tensors in the order of `shapes`; returns the bytes of the tensors.

    Arrays are rounded to the dtype of their name; bytes are written as they are.

    Raises:
        ArtifactError: a value is too large for its format.
    """
    entries = header_entries(dtypes, shapes)
    nbytes: int = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    header = encode_header(entries, METADATA)
    with path.open("wb") as file:
        file.write(header)
        for name, values in zip(shapes, tensors, strict=True):
            file.write(encode(values, dtypes[name], name) if not isinstance(values, bytes) else values)
        assert file.tell() == len(header) + nbytes
    return nbytes
