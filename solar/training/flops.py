"""Floating-point operations of training, counted from the network's own matrices and the documents' lengths."""

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from solar.training.attention import Segment


def matrix_parameters(network: PreTrainedModel) -> int:
    """Weights that every token is multiplied with: all linear layers, the output layer among them."""
    head = network.get_output_embeddings()
    linear = {id(module): module for module in network.modules() if isinstance(module, nn.Linear)} | {id(head): head}
    return sum(module.weight.numel() for module in linear.values())


def attention_flops(network: PreTrainedModel, segments: Iterable[Segment]) -> int:
    """Forward multiply-adds times 2 of scores and values, over all layers; a query counts the keys it sees."""
    config = network.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    seen = sum(
        segment.length * (segment.length + 1) // 2 + segment.length * (segment.prefix[1] if segment.prefix else 0)
        for segment in segments
    )
    return int(4 * config.num_hidden_layers * config.num_attention_heads * size * seen)


class Work:
    """Operations of a micro-batch, forward and backward (3 times the forward pass).

    The output layer works only where a token is trained. Frozen weights are counted as if they were trained, and
    recomputed activations are not counted: this is the work that a loss has cost, not what a device did for it.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self.network = network
        self.head = network.get_output_embeddings().weight.numel()
        self.body = matrix_parameters(network) - self.head

    def flops(self, segments: list[Segment], trained_tokens: int) -> int:
        tokens = sum(segment.length for segment in segments)
        matrices: int = 2 * self.body * tokens + 2 * self.head * trained_tokens
        return 3 * (matrices + attention_flops(self.network, segments))
