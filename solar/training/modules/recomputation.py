"""Activations that the backward pass computes again instead of holding them in memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.attention.varlen  # registers its operation
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from solar.training.distributed.sharding import decoder_layers

_ATEN = torch.ops.aten
HELD = [
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN._grouped_mm.default,
    _ATEN._scaled_mm.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_cudnn_attention.default,
    torch.ops.torch_attn._varlen_attn.default,
    torch.ops.higher_order.flex_attention,
]
"""Operations whose results are expensive: selective recomputation holds them, and computes the cheap rest again."""


def recompute_activations(network: PreTrainedModel, selective: bool) -> None:
    """Hold the inputs of each layer, and with `selective` the results of its matrix products and attention.

    The recomputation lies inside the layer's forward pass, so that a compiled layer compiles it, too.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if selective:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, HELD + _of_few_bits())
    for layer in decoder_layers(network):
        layer.forward = _recomputed(layer.forward, options)


def _of_few_bits() -> list[Any]:
    """The product with a weight in NF4, which bitsandbytes registers when it is imported."""
    product = getattr(torch.ops.bitsandbytes, "gemm_4bit", None)
    return [] if product is None else [product.default]


def _recomputed(forward: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """A closure, since torch.compile runs a `partial` of `checkpoint` without compiling it."""

    def recomputed(*arguments: Any, **keywords: Any) -> Any:
        return checkpoint(forward, *arguments, **options, **keywords)

    return recomputed
