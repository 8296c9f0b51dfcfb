"""A table of tensors as one safetensors file, written a tensor at a time: of sharded ones, never more is whole."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from solar.weights.header import encode_header

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What the format calls a number format."""


def save_file(tensors: Mapping[str, Tensor], path: Path | None) -> None:
    """Every process that holds shards calls this with the same names; those without a `path` help to gather them."""
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that all start aligned
    whole_ones = (whole(tensors[name]) for name in order)
    if path is None:
        for _ in whole_ones:
            pass
        return
    with path.open("wb") as file:
        file.write(encode_header(dict(_entries((name, tensors[name]) for name in order)), {}))
        for tensor in whole_ones:
            file.write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, gathered: then every process that holds a shard calls this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _entries(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, dict[str, Any]]]:
    start = 0
    for name, tensor in tensors:
        end = start + tensor.numel() * tensor.element_size()
        yield name, {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
