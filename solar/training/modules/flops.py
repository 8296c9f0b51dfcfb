"""Floating-point operations of a training step, from the network's own matrices and the documents' lengths."""

from collections import Counter

from torch import nn
from transformers import PreTrainedModel

from solar.network.attention import Segment
from solar.network.quantised.base import layers_of
from solar.weights.work import keys_seen, score_layers, share_used


class Work:
    """Operations of a micro-batch, forward and backward (3 times the forward pass).

    The output layer works only where a token is trained. Frozen weights are counted as if they were trained, and
    recomputed activations are not counted: this is the work that a loss has cost, not what a device did for it.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        config = network.config
        layers = list(config.per_layer_config) if getattr(config, "is_heterogeneous", False) else None
        each = [layer.to_dict() for layer in layers] if layers else [config.to_dict()] * config.num_hidden_layers
        self.scores = Counter(score_layers(each, getattr(config, "layer_types", None)))
        self.head = network.get_output_embeddings().weight.numel()
        self.body = body_parameters(network)

    def flops(self, segments: list[Segment], trained_tokens: int) -> int:
        """Of a micro-batch whose documents are `segments`."""
        tokens = sum(segment.length for segment in segments)
        matrices: int = 2 * self.body * tokens + 2 * self.head * trained_tokens
        return 3 * (matrices + self.attention(segments))

    def attention(self, segments: list[Segment]) -> int:
        """Of scores and values, forward, over all layers; a query counts the keys that it sees."""
        windows = {window for _, window in self.scores}
        keys = {window: sum(_keys_of(segment, window) for segment in segments) for window in windows}
        return sum(4 * width * keys[window] * layers for (width, window), layers in self.scores.items())


def body_parameters(network: PreTrainedModel) -> int:
    """Weights that every token is multiplied with, without the output layer: all matrices except the embeddings.

    Of a mixture of experts, the share of the experts that a token is sent to.
    """
    head = network.get_output_embeddings().weight
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    config = network.config.to_dict()
    few_bits = layers_of(network)
    parameters: float = sum(
        weight.numel() * share_used(name, config)
        for name, weight in network.named_parameters()
        if weight.ndim in (2, 3) and weight is not head and id(weight) not in embeddings and not name.endswith("bias")
        if name.removesuffix(".weight") not in few_bits
    )
    parameters += sum(
        layer.in_features * layer.out_features * share_used(name, config) for name, layer in few_bits.items()
    )
    return round(parameters)


def _keys_of(segment: Segment, window: int | None) -> int:
    return keys_seen(segment.length, segment.prefix[1] if segment.prefix else 0, window)
