"""The loss that keeps the experts of a mixture evenly used (Switch Transformer, arXiv 2101.03961, equation 4)."""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

Routed = tuple[Tensor, ...]
"""The router logits of each layer, [tokens, experts]."""


def balance_weight(network: PreTrainedModel) -> float:
    """The weight of the balance loss, if the family has one and the model's config asks for it; else 0."""
    if not getattr(network.config, "output_router_logits", False) or _family(network) is None:
        return 0.0
    return float(getattr(network, "router_aux_loss_coef", 0.0) or getattr(network, "aux_loss_coef", 0.0))


def balance_loss(network: PreTrainedModel, routed: Sequence[Routed]) -> Tensor:
    """The family's own balance loss, over all tokens of a micro-batch; `routed`: the logits of each pass."""
    compute = _family(network)
    assert compute is not None, "only called where `balance_weight` is above 0"
    by_layer = tuple(torch.cat(layer) for layer in zip(*routed, strict=True))
    return compute(by_layer, network.num_experts, network.num_experts_per_tok)


def _family(network: PreTrainedModel) -> Callable[..., Tensor] | None:
    module = sys.modules[type(network).__module__]
    function: Callable[..., Tensor] | None = getattr(module, "load_balancing_loss_func", None)
    return function
