"""AdamW on bfloat16 weights that loses no update: each weight's other 16 bits lie in the optimizer's state."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import AdamW, adamw

_HALF = 1 << 15
"""Half of the distance between two bfloat16 numbers, in units of the last bit of a float32 number."""


class SplitAdamW(AdamW):
    """torch's AdamW on float32 weights, of which the network holds the upper 16 bits and this optimizer the lower 16.

    Split-SGD (arXiv 2005.04680). Kahan compensation takes as many bytes and loses updates below 2^-18 of
    a weight; stochastic rounding takes none, but a checkpoint would have to hold the draws of every device. The moments
    are bfloat16, as those of plain AdamW on bfloat16 weights.
    """

    def __init__(self, params: Any, *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return result

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        """One weight at a time, so that few numbers are held in float32."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            for name in ("exp_avg", "exp_avg_sq", "low_bits"):
                state[name] = torch.zeros_like(weight)
        moments = [_local(state[name]) for name in ("exp_avg", "exp_avg_sq")]
        whole, wide = join(_local(weight), _local(state["low_bits"])), [moment.float() for moment in moments]
        assert weight.grad is not None, "checked by the caller"
        gradient = _local(weight.grad).float()
        beta1, beta2 = group["betas"]
        rates = {"lr": group["lr"], "weight_decay": group["weight_decay"], "eps": group["eps"]}
        options: dict[str, Any] = {"beta1": beta1, "beta2": beta2, "amsgrad": False, "maximize": False, "fused": True}
        adamw([whole], [gradient], [wide[0]], [wide[1]], [], [state["step"]], **rates, **options)
        high, low = split(whole)
        _local(weight).copy_(high)
        _local(state["low_bits"]).copy_(low)
        for moment, value in zip(moments, wide, strict=True):
            moment.copy_(value)


def split(whole: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 numbers as the nearest bfloat16 numbers, and the bits that these lack.

    The bits are held under the type bfloat16, since optimizers cast what they load to the type of the weight, and
    collectives do not know int16. As numbers they mean nothing.

    >>> high, low = split(torch.tensor([1.0 + 2**-9, -3.1415927]))
    >>> high, join(high, low)
    (tensor([ 1.0000, -3.1406], dtype=torch.bfloat16), tensor([ 1.0020, -3.1416]))
    """
    bits = whole.view(torch.int32)
    high = (bits + _HALF) >> 16
    low = bits - (high << 16)  # -2^15 to 2^15 - 1
    return high.to(torch.int16).view(torch.bfloat16), low.to(torch.int16).view(torch.bfloat16)


def join(high: Tensor, low: Tensor) -> Tensor:
    """The inverse of `split`, bit for bit."""
    upper, lower = (part.view(torch.int16).to(torch.int32) for part in (high, low))
    return ((upper << 16) + lower).view(torch.float32)


def _local(tensor: Tensor) -> Tensor:
    """This process' shard, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
