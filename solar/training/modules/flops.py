"""Floating-point operations of training, counted from the network's own matrices and the documents' lengths."""

from collections import Counter
from collections.abc import Iterable, Iterator

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from solar.network.attention import Segment

WITHOUT_SCORES = ("conv", "linear_attention", "mamba")
"""Kinds of layers whose queries do not look at every key; the products in their scans are not counted."""


def matrix_parameters(network: PreTrainedModel) -> int:
    """Weights that every token is multiplied with: all matrices but the embeddings, the output layer among them.

    Of a mixture of experts, the share of the experts that a token is sent to.
    """
    head = network.get_output_embeddings().weight
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    body = sum(
        weight.numel() * _share_used(name, network.config)
        for name, weight in network.named_parameters()
        if weight.ndim in (2, 3) and weight is not head and id(weight) not in embeddings and not name.endswith("bias")
    )
    return int(head.numel() + round(body))


def _share_used(name: str, config: PreTrainedConfig) -> float:
    experts = next(
        (
            found
            for key in ("num_local_experts", "num_experts", "n_routed_experts")
            if (found := getattr(config, key, 0))
        ),
        0,
    )
    return config.num_experts_per_tok / experts if experts and ".experts." in name else 1.0


def attention_flops(network: PreTrainedModel, segments: Iterable[Segment]) -> int:
    """Forward multiply-adds times 2 of scores and values, over all layers; a query counts the keys it sees."""
    return _attention_flops(Counter(_score_layers(network.config)), list(segments))


def _attention_flops(kinds: "Counter[tuple[int, int | None]]", segments: list[Segment]) -> int:
    seen = {window: sum(_seen(segment, window) for segment in segments) for _, window in kinds}
    return sum(4 * width * seen[window] * layers for (width, window), layers in kinds.items())


def _score_layers(config: PreTrainedConfig) -> Iterator[tuple[int, int | None]]:
    """Of each layer with scores: width of all its heads together, and keys that a query sees at most.

    Layers may differ in the size of their heads (Gemma 4).
    """
    uneven = getattr(config, "is_heterogeneous", False)
    layers = list(config.per_layer_config) if uneven else [config] * config.num_hidden_layers
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * len(layers)
    for layer, kind in zip(layers, types, strict=True):
        heads = getattr(layer, "num_attention_heads", None)
        if heads is None or kind in WITHOUT_SCORES:
            continue
        size = getattr(layer, "head_dim", None) or layer.hidden_size // heads
        window = getattr(layer, "sliding_window", None) if getattr(layer, "use_sliding_window", True) else None
        yield heads * size, window if kind == "sliding_attention" else None


def _seen(segment: Segment, window: int | None) -> int:
    """Keys that all queries of a segment see: the i-th its prefix and i + 1 more, but no more than the window.

    >>> _seen(Segment(3), None), _seen(Segment(3, (0, 2)), None), _seen(Segment(3, (0, 2)), 4)
    (6, 12, 11)
    """
    prefix = segment.prefix[1] if segment.prefix else 0
    most = prefix + segment.length
    cut = max(0, most - max(prefix, window or most))  # queries that do not see all the keys before them
    if window is not None and window < prefix:
        return segment.length * window
    return segment.length * prefix + segment.length * (segment.length + 1) // 2 - cut * (cut + 1) // 2


class Work:
    """Operations of a micro-batch, forward and backward (3 times the forward pass).

    The output layer works only where a token is trained. Frozen weights are counted as if they were trained, and
    recomputed activations are not counted: this is the work that a loss has cost, not what a device did for it.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self.scores = Counter(_score_layers(network.config))
        self.head = network.get_output_embeddings().weight.numel()
        self.body = matrix_parameters(network) - self.head

    def flops(self, segments: list[Segment], trained_tokens: int) -> int:
        tokens = sum(segment.length for segment in segments)
        matrices: int = 2 * self.body * tokens + 2 * self.head * trained_tokens
        return 3 * (matrices + _attention_flops(self.scores, segments))
