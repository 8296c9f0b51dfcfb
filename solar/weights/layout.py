"""Where tensors lie in a file that is to be written."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from solar.weights.header import DTYPE_BITS

METADATA = {"format": "pt"}
"""What `transformers` expects in a file's header."""


def header_entries(dtypes: Mapping[str, str], shapes: Mapping[str, Iterable[int]]) -> dict[str, dict[str, Any]]:
    """Tensors laid end to end: name -> dtype, shape, data_offsets."""
    entries: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, shape in shapes.items():
        start, offset = offset, offset + prod(shape) * DTYPE_BITS[dtypes[name]] // 8
        entries[name] = {"dtype": dtypes[name], "shape": list(shape), "data_offsets": [start, offset]}
    return entries
