"""The loss that keeps the experts of a mixture evenly used (Switch Transformer, arXiv 2101.03961, equation 4)."""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

Routed = tuple[Tensor, ...]
"""What each layer's router says of every token, [tokens, experts]."""


def balance_weight(network: PreTrainedModel) -> float:
    """Its weight in the loss of a family that has one, where the model's config asks for it; else 0."""
    if not getattr(network.config, "output_router_logits", False) or _family(network) is None:
        return 0.0
    return float(getattr(network, "router_aux_loss_coef", 0.0) or getattr(network, "aux_loss_coef", 0.0))


def balance_loss(network: PreTrainedModel, routed: Sequence[Routed]) -> Tensor:
    """As the family computes it, over all tokens of a micro-batch; `routed`: one for each pass through the network."""
    compute = _family(network)
    assert compute is not None, "asked for where `balance_weight` is above 0"
    by_layer = tuple(torch.cat(layer) for layer in zip(*routed, strict=True))
    return compute(by_layer, network.num_experts, network.num_experts_per_tok)


def _family(network: PreTrainedModel) -> Callable[..., Tensor] | None:
    found: Callable[..., Tensor] | None = getattr(
        sys.modules[type(network).__module__], "load_balancing_loss_func", None
    )
    return found
