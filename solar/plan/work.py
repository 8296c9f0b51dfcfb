"""Training FLOPs in closed form, from shapes alone: of a described architecture or of the headers of a model folder.

Counted are matrix products, 2 a multiply-add, the backward pass as twice the forward pass: each layer's matrices, the
output layer, and causal attention's scores and values. Not counted: embeddings, norms, activations, biases, the
optimizer, what activation checkpointing computes again. Frozen weights count as if they were trained.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from solar.config.model import ArchitectureConfig

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_LARGEST_HEADER = 100 * 2**20


@dataclass(frozen=True)
class LayerWork:
    """What one layer does for a token."""

    matrices: float
    """Parameters it is multiplied with; of a mixture of experts, those of the experts it is sent to."""
    attention: int
    """Query heads times head size."""
    window: int | None = None
    """Keys a query sees at most."""

    def flops(self, length: int) -> float:
        """Of a token, forward and backward: mean over a document of `length` tokens.

        >>> LayerWork(matrices=10, attention=2).flops(3)  # 6 x 10, and 12 x 2 x (1 + 2 + 3) / 3 keys
        108.0
        >>> LayerWork(matrices=10, attention=2, window=2).flops(3)  # 1 + 2 + 2 keys
        100.0
        """
        window = min(length, self.window or length)
        seen = window - window * (window - 1) / (2 * length)
        return 6 * self.matrices + 12 * self.attention * seen


@dataclass(frozen=True)
class ModelWork:
    """All layers, and the output layer's parameters."""

    layers: tuple[LayerWork, ...]
    head: int

    def flops(self, length: int) -> float:
        """Of training on one token of documents of `length` tokens."""
        return sum(layer.flops(length) for layer in self.layers) + 6 * self.head

    def grown(self, sources: Sequence[int]) -> "ModelWork":
        """With these layers of this model instead of all of its own."""
        return ModelWork(tuple(self.layers[source] for source in sources), self.head)


def work_of_architecture(sizes: ArchitectureConfig) -> ModelWork:
    """Of a Llama.

    >>> mistral = ArchitectureConfig(32, 4096, 14336, 32, 8, 32000, 4096, False, 1e4, 1e-5)
    >>> f"{work_of_architecture(mistral).grown([*range(24), *range(8, 32)]).flops(4096):,.0f}"
    '68,433,346,560'
    """
    layer = LayerWork(sizes.layer_parameters - 2 * sizes.hidden_size, sizes.hidden_size)
    return ModelWork((layer,) * sizes.num_hidden_layers, sizes.vocab_size * sizes.hidden_size)


def work_of_folder(folder: Path) -> ModelWork | None:
    """Of a Hugging Face folder, from config.json and the headers of its safetensors; None if it has none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shapes = dict(_shapes(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    config = config.get("text_config") or config
    matrices: dict[int, float] = {}
    for name, shape in shapes.items():
        if (place := _LAYER.search(name)) is not None and len(shape) in (2, 3):
            layer = int(place.group(1))
            matrices[layer] = matrices.get(layer, 0.0) + prod(shape) * _share_used(name, config)
    hidden, vocabulary = _first(config, "hidden_size", "n_embd", "d_model"), _first(config, "vocab_size")
    heads = _first(config, "num_attention_heads", "n_head", "num_heads")
    if not matrices or not (hidden and vocabulary and heads) or sorted(matrices) != list(range(len(matrices))):
        return None
    attention = heads * (_first(config, "head_dim") or hidden // heads)
    windows = _windows(config, len(matrices))
    layers = tuple(LayerWork(matrices[n], attention, windows[n]) for n in range(len(matrices)))
    return ModelWork(layers, vocabulary * hidden)


def _shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _LARGEST_HEADER:
                raise ValueError(path.name)
            header = json.loads(file.read(size))
        yield from ((name, facts["shape"]) for name, facts in header.items() if name != "__metadata__")


def _share_used(name: str, config: dict[str, Any]) -> float:
    """Of an expert's matrix: the chance that a token is sent to it."""
    experts = _first(config, "num_local_experts", "num_experts", "n_routed_experts")
    if not experts or ".experts." not in name:
        return 1.0
    return (_first(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk") or experts) / experts


def _windows(config: dict[str, Any], layers: int) -> list[int | None]:
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    types = config.get("layer_types") or ["sliding_attention"] * layers
    return [window if kind == "sliding_attention" else None for kind in types]


def _first(config: dict[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)
