"""Whether models can be merged: the same tensors in the same places. Every refusal names the tensor that differs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solar.errors import StageError
from solar.merging.function import function_of
from solar.weights.folder import ModelFolder
from solar.weights.header import StoredTensor
from solar.weights.json_file import read_json

ONE_KIND = "only models of one kind can be merged"

OUTPUT = ("lm_head.weight", "embed_out.weight", "output.weight")
"""Names of the output embeddings; the first is used in messages where a file has none."""

VOCABULARIES = ("tokenizer.json", "vocab.json")
"""Files that say which row is which token, the best first."""

AVERAGED = ("BF16", "F16", "F32")
"""Stored formats that are averaged: those with a wider format to compute in, so that a merge is rounded once."""

WHOLE_NUMBERS = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
"""Stored formats that are not averaged: buffers, which must be equal in all models and are copied."""


def check_compatible(models: Sequence[ModelFolder]) -> None:
    """Raise StageError, with the tensor's name, if any model differs from the first in more than its numbers."""
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
    """Two grown models must have been grown by the same plan; not grown here, nothing is known and nothing refused."""
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
    return layers if before is None else [before[layer] for layer in layers]


def in_layer(model: ModelFolder, layer: int) -> str:
    """A tensor of a layer, for a message."""
    return min((name for name in model.tensors if f".{layer}." in name), default=f"layer {layer}")


def check_tied(first: ModelFolder, other: ModelFolder) -> None:
    """Both tie the output to the input embeddings, or neither does."""
    ties = [bool(model.config.get("tie_word_embeddings", False)) for model in (first, other)]
    heads = [next((name for name in OUTPUT if name in model.tensors), None) for model in (first, other)]
    if ties[0] != ties[1] or (heads[0] is None) != (heads[1] is None):
        said = [
            f"{'tied' if tie else 'untied'} and {'stored' if head else 'not stored'}"
            for tie, head in zip(ties, heads, strict=True)
        ]
        raise differs(first, other, f"{heads[0] or heads[1] or OUTPUT[0]} is {said[0]}", said[1])


def check_tensors(first: ModelFolder, other: ModelFolder) -> None:
    """The same names, formats and shapes."""
    for name in sorted(first.tensors.keys() ^ other.tensors.keys()):
        there = name in first.tensors
        raise differs(first, other, f"{name} is {'there' if there else 'missing'}", "missing" if there else "there")
    for name, left in first.tensors.items():
        right = other.tensors[name]
        if left.dtype != right.dtype:
            raise differs(first, other, f"{name} is {left.dtype}", right.dtype, "convert one of them first")
        if left.shape != right.shape:
            why = "their vocabularies differ" if is_vocabulary(left, first) else ONE_KIND
            raise differs(first, other, f"{name} is {list(left.shape)}", f"{list(right.shape)}", why)


def is_vocabulary(tensor: StoredTensor, model: ModelFolder) -> bool:
    """Whether a tensor has a row for each token."""
    return bool(tensor.shape) and tensor.shape[0] == model.config.get("vocab_size")


def check_function(first: ModelFolder, other: ModelFolder) -> None:
    """Configurations, where both say something, must not make the same tensors compute different things."""
    ours, theirs = (function_of(model.config) for model in (first, other))
    for key in ours:
        if key in theirs and ours[key] != theirs[key]:
            raise differs(first, other, f"config.json: {key} is {ours[key]}", f"{theirs[key]}")


def check_vocabulary(first: ModelFolder, other: ModelFolder) -> None:
    """Row i of the embeddings must be the same token in both, where both bring a tokenizer."""
    both = [name for name in VOCABULARIES if all((model.folder / name).exists() for model in (first, other))]
    if not both:
        return
    ours, theirs = (model.folder / both[0] for model in (first, other))
    if ours.read_bytes() == theirs.read_bytes():
        return
    left, right = tokens(ours), tokens(theirs)
    for token in sorted(left.keys() | right.keys()):
        if left.get(token) != right.get(token):
            place = next((name for name, tensor in first.tensors.items() if is_vocabulary(tensor, first)), "embeddings")
            quoted = json.dumps(token, ensure_ascii=False)
            said = f"{place}: token {quoted} is row {left.get(token, 'none')}"
            raise differs(first, other, said, f"row {right.get(token, 'none')}", "their vocabularies differ")


def tokens(path: Path) -> dict[str, int]:
    """Token -> row, of a tokenizer.json or of what slow tokenizers keep in its place."""
    tokenizer = read_json(path)
    if path.name != VOCABULARIES[0]:
        return tokenizer
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # unigram: pairs of token and score, the row is the position
        vocabulary = {pair[0]: row for row, pair in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}}


def differs(first: ModelFolder, other: ModelFolder, ours: str, theirs: str, why: str = ONE_KIND) -> StageError:
    """The one sentence every refusal is."""
    return StageError(f"{ours} in {first.folder}, {theirs} in {other.folder}; {why}")
