"""Values of tensors on disk, read slice by slice and written tensor by tensor."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solar.weights.header import DTYPE_BITS, METADATA, StoredTensor, encode_header, header_entries
from solar.weights.numbers import Wide, decode, encode


def read_values(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.float64]:
    """Elements `start` to `stop` of a tensor of floats, exactly."""
    return decode(read_bytes(tensor, start, stop), tensor.dtype).astype(np.float64)


def read_bytes(tensor: StoredTensor, start: int, stop: int) -> bytes:
    """Stored bytes of elements `start` to `stop`."""
    width = DTYPE_BITS[tensor.dtype] // 8
    with tensor.path.open("rb") as file:
        file.seek(tensor.start + start * width)
        return file.read((stop - start) * width)


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
