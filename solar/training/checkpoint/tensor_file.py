"""A table of tensors as one safetensors file. Sharded tensors are gathered and written one at a time."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from solar.weights.header import encode_header

DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Number formats by their names in safetensors headers."""
DTYPES_BY_NAME = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def save_file(tensors: Mapping[str, Tensor], path: Path | None) -> None:
    """All processes that hold shards call this with the same names; those without a `path` only help to gather."""
    order = sorted(
        tensors, key=lambda name: (-tensors[name].element_size(), name)
    )  # large elements first: then all tensors are aligned
    gathered = (whole(tensors[name]) for name in order)
    if path is None:
        for _ in gathered:
            pass
        return
    with path.open("wb") as file:
        file.write(encode_header(dict(_entries((name, tensors[name]) for name in order)), {}))
        for tensor in gathered:
            file.write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or a sharded tensor gathered; all processes that hold its shards call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _entries(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, dict[str, Any]]]:
    start = 0
    for name, tensor in tensors:
        end = start + tensor.numel() * tensor.element_size()
        yield name, {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
