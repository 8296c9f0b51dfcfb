"""Nested state as JSON and a flat table of tensors: what a checkpoint needs, and nothing that could run code."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None


def flatten(state: Any) -> tuple[Plain, dict[str, Tensor]]:
    """The state with a name in place of each tensor, and the tensors by name; a tensor held twice is stored once.

    (But for sharded ones, whose shards do not tell, and of which all processes must find the same.)

    Raises `TypeError` for what JSON cannot say.

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


def same(left: Any, right: Any) -> bool:
    """Whether two nested states are equal to the last bit.

    >>> same({"a": [torch.ones(2), 1]}, {"a": [torch.ones(2), 1]}), same([torch.ones(2)], [torch.zeros(2)])
    (True, False)
    """
    plain_left, tensors_left = flatten(left)
    plain_right, tensors_right = flatten(right)
    return (
        plain_left == plain_right
        and tensors_left.keys() == tensors_right.keys()
        and all(
            tensor.dtype == tensors_right[name].dtype and torch.equal(tensor, tensors_right[name])
            for name, tensor in tensors_left.items()
        )
    )
