"""Frozen linear layers whose weights are held in 4 or 8 bits. Needs `bitsandbytes`.

Shapes: T tokens, I inputs, O outputs.
"""

from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn


class _Frozen:
    """Weight and bias never move and are made from the base's files again, so no checkpoint holds either."""

    transposed = False
    """Whether the base stores the weight as [I, O]."""

    def _save_to_state_dict(self, *_: Any) -> None:
        pass

    def _load_from_state_dict(self, *_: Any) -> None:
        pass


class Frozen4bit(_Frozen, bnb.nn.Linear4bit):  # type: ignore[misc]
    """The weight in NF4, its scales in 8 bits ("double quantisation", arXiv 2305.14314)."""

    def __init__(
        self, weight_OI: Tensor, bias: nn.Parameter | None, compute: torch.dtype, device: torch.device
    ) -> None:
        outputs, inputs = weight_OI.shape
        super().__init__(inputs, outputs, bias is not None, compute, quant_type="nf4", device="meta")
        self.weight = bnb.nn.Params4bit(weight_OI, requires_grad=False, quant_type="nf4", module=self).to(device)
        self.bias = bias
        self.support_avx512bf16_for_cpu = False  # else a validation repacks the weights, and training reads garbage

    @property
    def bits(self) -> int:
        """Of all that is held for the weight."""
        scales = self.weight.quant_state
        return 8 * sum(int(tensor.nbytes) for tensor in (self.weight, scales.absmax, scales.state2.absmax))

    def dequantised(self) -> Tensor:
        """The weight as [O, I], in the number format that it had."""
        weight_OI: Tensor = bnb.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return weight_OI


class Frozen8bit(_Frozen, bnb.nn.Linear8bitLt):  # type: ignore[misc]
    """The weight in 8 bits with one scale for each output (arXiv 2208.07339).

    bitsandbytes would round the inputs, too, but not while a CPU trains; the exported model rounds no inputs.
    """

    def __init__(
        self, weight_OI: Tensor, bias: nn.Parameter | None, compute: torch.dtype, device: torch.device
    ) -> None:
        outputs, inputs = weight_OI.shape
        super().__init__(inputs, outputs, bias is not None, has_fp16_weights=False, device="meta")
        self.weight = bnb.nn.Int8Params(weight_OI.cpu(), requires_grad=False).to(device)
        self.bias, self.compute = bias, compute
        self.init_8bit_state()

    @property
    def bits(self) -> int:
        """Of all that is held for the weight."""
        return 8 * int(self.state.CB.nbytes + self.state.SCB.nbytes)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(self.compute)
        y: Tensor = _TimesInt8.apply(x.to(self.compute), self.state.CB, self.state.SCB, bias)  # type: ignore[no-untyped-call]
        return y.to(x.dtype)

    def dequantised(self) -> Tensor:
        """The weight as [O, I] in float32."""
        return _floats(self.state.CB, self.state.SCB, torch.float32)


class _TimesInt8(torch.autograd.Function):
    """A linear map whose weight is made anew in the backward pass, so that no layer holds it as floats."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, codes_OI: Tensor, scales_O: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(codes_OI, scales_O)
        return nn.functional.linear(x_TI, _floats(codes_OI, scales_O, x_TI.dtype), bias_O)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        codes_OI, scales_O = ctx.saved_tensors
        return gradients[0] @ _floats(codes_OI, scales_O, gradients[0].dtype), None, None, None


def _floats(codes_OI: Tensor, scales_O: Tensor, dtype: torch.dtype) -> Tensor:
    return codes_OI.to(dtype).mul_((scales_O / 127).unsqueeze(1))
