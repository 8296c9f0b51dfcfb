"""Whether models can be merged: the same tensors in the same places. Every refusal names the tensor that differs."""

import json
from collections.abc import Sequence
from typing import Any

from solar.errors import StageError
from solar.merging.function import differing_key, function_of
from solar.merging.redundant import redundant
from solar.merging.vocabulary import difference, tokens, vocabulary_file
from solar.weights.agreement import HEADS, check_layer_count, head_of, is_tied
from solar.weights.folder import ModelFolder
from solar.weights.header import StoredTensor
from solar.weights.quantised import refuse_packed, refuse_quantised

ONE_KIND = "only models of one kind can be merged"

CONVERT = "convert one of them first: python -m solar.grow MODEL OUT plan=stack times=1 dtype=float32 (or another)"
"""How to bring two models to one format: growth by a plan that changes no layer."""

AVERAGED = ("BF16", "F16", "F32")
"""Stored formats that are averaged: those with a wider format to compute in, so that a merge is rounded once."""

WHOLE_NUMBERS = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
"""Stored formats that are not averaged: buffers, which must be equal in all models and are copied."""


def check_compatible(models: Sequence[ModelFolder]) -> None:
    """Raise StageError, with the tensor's name, if any model differs from the first in more than its numbers."""
    for model in models:
        check_layer_count(model)
        refuse_quantised(model.folder, model.config)
        refuse_packed(model)
    first = models[0]
    for tensor in first.tensors.values():
        if tensor.dtype not in AVERAGED and tensor.dtype not in WHOLE_NUMBERS:
            raise StageError(
                f"{first.folder}: {tensor.name} is {tensor.dtype}, expected {', '.join(AVERAGED)}; convert them first"
            )
    for other in models[1:]:
        check_layer_maps(first, other)
        check_tied(first, other)
        check_tensors(first, other)
        check_function(first, other)
        check_vocabulary(first, other)


def check_layer_maps(first: ModelFolder, other: ModelFolder) -> None:
    """Two grown models must have been grown by the same plan. Other models carry no plan and are not refused."""
    ours, theirs = layer_map(first.config), layer_map(other.config)
    if ours is None or theirs is None or ours == theirs:
        return
    for layer, (left, right) in enumerate(zip(ours, theirs, strict=False)):
        if left != right:
            raise differs(first, other, f"{in_layer(first, layer)} is grown from layer {left}", f"from layer {right}")
    raise differs(first, other, f"{in_layer(first, min(len(ours), len(theirs)))}: {len(ours)} layers", f"{len(theirs)}")


def layer_map(config: dict[str, Any]) -> list[Any] | None:
    """The source of each layer, as growth notes it in config.json; of a model grown twice, in the first base.

    >>> layer_map({"solar": {"layers": [0, 1, 1, 2], "grown_from": {"layers": [0, 0, 1]}}})
    [0, 0, 0, 1]
    """
    grown = config.get("solar")
    layers = grown.get("layers") if isinstance(grown, dict) else None
    if not isinstance(grown, dict) or not isinstance(layers, list):
        return None
    before = layer_map({"solar": grown.get("grown_from")})
    if before is None:
        return layers
    if not all(isinstance(layer, int) and 0 <= layer < len(before) for layer in layers):
        return None  # not what growth writes
    return [before[layer] for layer in layers]


def in_layer(model: ModelFolder, layer: int) -> str:
    """The name of a tensor of this layer, for a message."""
    return min((name for name in model.tensors if f".{layer}." in name), default=f"layer {layer}")


def check_tied(first: ModelFolder, other: ModelFolder) -> None:
    """Both tie the output to the input embeddings, or neither does."""
    ties = [is_tied(model.config) for model in (first, other)]
    heads = [head_of(model) for model in (first, other)]
    stored_apart = [head is not None and not tie for head, tie in zip(heads, ties, strict=True)]
    if ties[0] != ties[1] or stored_apart[0] != stored_apart[1]:
        states = [
            f"{'tied' if tie else 'untied'} and {'stored' if head else 'not stored'}"
            for tie, head in zip(ties, heads, strict=True)
        ]
        name = next((head.name for head in heads if head is not None), HEADS[0])
        raise differs(first, other, f"{name} is {states[0]}", states[1])


def check_tensors(first: ModelFolder, other: ModelFolder) -> None:
    """The same names, formats and shapes, except for tensors that say nothing."""
    ignored = redundant(first) | redundant(other)
    for name in sorted((first.tensors.keys() ^ other.tensors.keys()) - ignored):
        there = name in first.tensors
        raise differs(first, other, f"{name} is {'there' if there else 'missing'}", "missing" if there else "there")
    for name, left in first.tensors.items():
        if name in ignored:
            continue
        right = other.tensors[name]
        if left.dtype != right.dtype:
            raise differs(first, other, f"{name} is {left.dtype}", right.dtype, CONVERT)
        if left.shape != right.shape:
            why = "their vocabularies differ" if is_vocabulary(left, first) else ONE_KIND
            raise differs(first, other, f"{name} is {list(left.shape)}", f"{list(right.shape)}", why)


def is_vocabulary(tensor: StoredTensor, model: ModelFolder) -> bool:
    """Whether a tensor has a row for each token."""
    return bool(tensor.shape) and tensor.shape[0] == model.config.get("vocab_size")


def check_function(first: ModelFolder, other: ModelFolder) -> None:
    """Configurations, where both have a key, must describe the same function."""
    if (key := differing_key(first.config, other.config)) is not None:
        ours, theirs = (function_of(model.config).get(key, "not set") for model in (first, other))
        raise differs(first, other, f"config.json: {key} is {_as_written(ours)}", _as_written(theirs))


def check_vocabulary(first: ModelFolder, other: ModelFolder) -> None:
    """Row i of the embeddings must be the same token in both, where both bring a tokenizer."""
    ours, theirs = vocabulary_file(first.folder), vocabulary_file(other.folder)
    if ours is None or theirs is None:
        return
    if ours.name == theirs.name and ours.read_bytes() == theirs.read_bytes():
        return
    left, right = tokens(ours), tokens(theirs)
    token = difference(left, right, ours.name == theirs.name)
    if token is not None:
        place = next((name for name, tensor in first.tensors.items() if is_vocabulary(tensor, first)), "embeddings")
        row_text = f"{place}: token {json.dumps(token, ensure_ascii=False)} is row {left.get(token, 'none')}"
        raise differs(first, other, row_text, f"row {right.get(token, 'none')}", "their vocabularies differ")


def differs(first: ModelFolder, other: ModelFolder, ours: str, theirs: str, why: str = ONE_KIND) -> StageError:
    """The sentence that every refusal has."""
    return StageError(f"{ours} in {first.folder}, {theirs} in {other.folder}; {why}")


def _as_written(value: Any) -> str:
    """A value as config.json has it; texts without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
