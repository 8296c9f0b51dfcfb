"""Liger's fused loss (arXiv 2410.10989, section 3.2): one Triton kernel from a chunk of logits to loss and gradient."""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

DEVICE = "cuda"
"""The kind of device that the kernels run on."""


@cache
def installed() -> bool:
    return find_spec("liger_kernel") is not None


def takes(hidden_ND: Tensor) -> bool:
    """Whether liger computes this loss. Liger computes no gradient of the head if the hidden states need none."""
    return hidden_ND.device.type == DEVICE and hidden_ND.requires_grad and len(hidden_ND) > 0 and installed()


def fused_cross_entropy_sum(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """`cross_entropy.cross_entropy_sum` without z-loss; it, too, sums the head's gradient over chunks in float32."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: Tensor = liger_fused_linear_cross_entropy(
        hidden_ND, weight_VD, targets_N, reduction="sum", accum_dtype=torch.float32
    )
    return loss
