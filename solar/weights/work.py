"""Training FLOPs in closed form, from a configuration and the shapes of its tensors.

Counted are matrix products, 2 a multiply-add, the backward pass as twice the forward pass: each layer's matrices, the
output layer, and causal attention's scores and values. Not counted: embeddings, norms, activations, biases, the
optimizer, and what activation checkpointing computes again. Frozen weights count as if they were trained.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from solar.errors import ArtifactError
from solar.weights.folder import open_folder

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.([0-9]{1,9})\.")
WITHOUT_SCORES = ("conv", "linear_attention", "mamba")
"""Kinds of layers whose queries do not look at every key; the products in their scans are not counted."""


@dataclass(frozen=True)
class LayerWork:
    """The work of a layer for a token."""

    matrices: float
    """Parameters that a token is multiplied with; in a mixture of experts, those of the experts that see the token."""
    attention: int
    """Query heads times head size."""
    window: int | None = None
    """Keys that a query sees at most."""

    def flops(self, length: int) -> float:
        """FLOPs of a token, forward and backward: the mean over a document of `length` tokens.

        >>> LayerWork(matrices=10, attention=2).flops(3)  # 6 x 10, and 12 x 2 x (1 + 2 + 3) / 3 keys
        108.0
        >>> LayerWork(matrices=10, attention=2, window=2).flops(3)  # 1 + 2 + 2 keys
        100.0
        """
        return 6 * self.matrices + 12 * self.attention * keys_seen(length, window=self.window) / length


@dataclass(frozen=True)
class ModelWork:
    """All layers, and the output layer's parameters."""

    layers: tuple[LayerWork, ...]
    head: int

    def flops(self, length: int) -> float:
        """FLOPs of training on a token, in documents of `length` tokens."""
        return sum(layer.flops(length) for layer in self.layers) + 6 * self.head

    def grown(self, sources: Sequence[int]) -> "ModelWork":
        """The work of the model that runs these layers of this model."""
        return ModelWork(tuple(self.layers[source] for source in sources), self.head)


def keys_seen(length: int, prefix: int = 0, window: int | None = None) -> int:
    """Keys that all queries of a document see: the i-th its prefix and i + 1 more, at most the window.

    >>> keys_seen(3), keys_seen(3, prefix=2), keys_seen(3, prefix=2, window=4)
    (6, 12, 11)
    """
    most = prefix + length
    if window is not None and window < prefix:
        return length * window
    cut = max(0, most - max(prefix, window or most))  # queries that do not see all the keys before them
    return length * prefix + length * (length + 1) // 2 - cut * (cut + 1) // 2


def share_used(name: str, config: Mapping[str, Any]) -> float:
    """For an expert's matrix, the share of tokens that the expert sees; 1 for all other matrices."""
    experts = _first(config, "num_local_experts", "num_experts", "n_routed_experts")
    if not experts or ".experts." not in name:
        return 1.0
    return (_first(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk") or experts) / experts


def score_layers(layers: Sequence[Mapping[str, Any]], kinds: Sequence[str] | None) -> Iterator[tuple[int, int | None]]:
    """Of each layer: width of all its query heads together, and the keys that a query sees at most.

    `layers`: the configuration that holds for each (they differ in Gemma 4). `kinds`: the config's `layer_types`. The
    width is 0 where a layer has no scores.
    """
    for config, kind in zip(layers, kinds or ["sliding_attention"] * len(layers), strict=True):
        heads = _first(config, "num_attention_heads", "n_head", "num_heads")
        hidden = _first(config, "hidden_size", "n_embd", "d_model")
        if not heads or kind in WITHOUT_SCORES:
            yield 0, None
            continue
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        window = window if isinstance(window, int) and window > 0 else None
        width = heads * (_first(config, "head_dim") or hidden // heads)
        yield width, window if kind == "sliding_attention" else None


def work_of_folder(folder: Path) -> ModelWork | None:
    """The work of a Hugging Face folder, from config.json and the files' headers; None where these are not enough."""
    try:
        model = open_folder(folder)
    except (ArtifactError, OSError):
        return None
    inner = model.config.get("text_config")
    config = inner if isinstance(inner, dict) and inner else model.config
    matrices: dict[int, float] = {}
    for name, tensor in model.tensors.items():
        if (place := _LAYER.search(name)) is not None and len(tensor.shape) in (2, 3):
            layer = int(place.group(1))
            matrices[layer] = matrices.get(layer, 0.0) + prod(tensor.shape) * share_used(name, config)
    hidden, vocabulary = _first(config, "hidden_size", "n_embd", "d_model"), _first(config, "vocab_size")
    count, kinds = len(matrices), config.get("layer_types")
    has_heads = _first(config, "num_attention_heads", "n_head", "num_heads")
    if not (count and hidden and vocabulary and has_heads) or sorted(matrices) != list(range(count)):
        return None
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != count):
        return None
    scores = list(score_layers([config] * count, kinds))
    layers = (LayerWork(matrices[number], *scores[number]) for number in range(count))
    return ModelWork(tuple(layers), vocabulary * hidden)


def _first(config: Mapping[str, Any], *names: str) -> int:
    value = next((config[name] for name in names if config.get(name)), 0)
    return value if isinstance(value, int) else 0
