"""Nested state as JSON and a flat table of tensors: everything a checkpoint needs, and nothing that can run code."""

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None


def flatten(state: Any) -> tuple[Plain, dict[str, Tensor]]:
    """The state with a name in place of each tensor, and the tensors by name.

    A tensor that the state holds twice is stored once. Sharded tensors are not deduplicated: ranks must agree on names.

    Raises `TypeError` for a value that JSON cannot hold.

    >>> import torch
    >>> plain, tensors = flatten({"lr": (0.1, 2), "step": {0: torch.ones(1)}})
    >>> plain
    {'lr': {'<tuple>': [0.1, 2]}, 'step': {'<items>': [[0, {'<tensor>': 'step.0'}]]}}
    >>> unflatten(plain, tensors)
    {'lr': (0.1, 2), 'step': {0: tensor([1.])}}
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}

    def visit(value: Any, path: str) -> Plain:
        if isinstance(value, Tensor):
            known = value.numel() > 0 and not isinstance(value, DTensor)
            key = (value.data_ptr(), value.shape, value.stride(), value.dtype) if known else (path,)
            if key not in names:
                names[key] = path
                tensors[path] = value.detach()
            return {"<tensor>": names[key]}
        if isinstance(value, dict):
            if all(isinstance(key, str) and not key.startswith("<") for key in value):
                return {key: visit(part, f"{path}.{key}" if path else key) for key, part in value.items()}
            return {"<items>": [[visit(key, path), visit(part, f"{path}.{key}")] for key, part in value.items()]}
        if isinstance(value, tuple):
            return {"<tuple>": [visit(part, f"{path}.{index}") for index, part in enumerate(value)]}
        if isinstance(value, list):
            return [visit(part, f"{path}.{index}") for index, part in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{path}: {type(value).__name__} does not belong in a checkpoint")

    return visit(state, ""), tensors


def unflatten(plain: Plain, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flatten`."""
    if isinstance(plain, list):
        return [unflatten(part, tensors) for part in plain]
    if not isinstance(plain, dict):
        return plain
    if "<tensor>" in plain:
        return tensors[plain["<tensor>"]]
    if "<tuple>" in plain:
        return tuple(unflatten(part, tensors) for part in plain["<tuple>"])
    if "<items>" in plain:
        return {unflatten(key, tensors): unflatten(part, tensors) for key, part in plain["<items>"]}
    return {key: unflatten(part, tensors) for key, part in plain.items()}
