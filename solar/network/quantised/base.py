"""A frozen base in few bits, beside which adapters are trained (QLoRA, arXiv 2305.14314)."""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from solar.config.training import FrozenBase, Precision
from solar.errors import StageError


def quantise(network: PreTrainedModel, form: FrozenBase, precision: Precision, device: torch.device) -> None:
    """Hold the weights of the linear layers in few bits, in place, on `device`. Needs `bitsandbytes`.

    The layers are those that the quantizer of `transformers` takes: neither the output layer nor what the family keeps
    in float32. Raises `StageError` where there is none.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for kernels that only inference would use
    try:
        from solar.network.quantised.layers import Frozen4bit, Frozen8bit
    except ImportError:
        raise StageError(
            "adapter.base: needs bitsandbytes, which is not installed; pip install 'solar[qlora]'"
        ) from None
    kind = Frozen4bit if form is FrozenBase.nf4 else Frozen8bit
    compute = torch.float32 if precision is Precision.fp32 else torch.bfloat16
    kept = HfQuantizer.get_modules_to_not_convert(network, None, network._keep_in_fp32_modules)
    names = [name for name, module in network.named_modules() if type(module) in (nn.Linear, Conv1D)]
    for name in names:
        if should_convert_module(name, kept):
            plain: Any = network.get_submodule(name)
            transposed = isinstance(plain, Conv1D)
            weight_OI = plain.weight.detach().T if transposed else plain.weight.detach()
            layer = kind(weight_OI.contiguous(), plain.bias, compute, device)
            layer.transposed = transposed
            network.set_submodule(name, layer.train(network.training))
    if not layers_of(network):
        raise StageError(f"adapter.base: found {form}, but the model has no linear layer that takes it; expected null")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.is_loaded_in_4bit = form is FrozenBase.nf4  # peft and the count of parameters in transformers ask for these
    network.is_loaded_in_8bit = form is FrozenBase.int8


def layers_of(network: nn.Module) -> dict[str, Any]:
    """The layers in few bits, by their names in the model without adapters' own parts; empty for a base of floats."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "dequantised")}


def dequantised(network: nn.Module) -> dict[str, Tensor]:
    """What the state dict of a quantised network lacks: weights and biases as floats, on the host."""
    floats: dict[str, Tensor] = {}
    for name, layer in layers_of(network).items():
        weight_OI = layer.dequantised().cpu()
        floats[f"{name}.weight"] = weight_OI.T.contiguous() if layer.transposed else weight_OI
        if layer.bias is not None:
            floats[f"{name}.bias"] = layer.bias.detach().cpu()
    return floats


def describe(network: nn.Module, form: FrozenBase) -> str:
    """One line for people: how much is in few bits, and what becomes of the layers in the saved model."""
    layers = layers_of(network).values()
    held = sum(layer.bits for layer in layers)
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    return f"{form}, {held / weights:.2f} bits a weight in {len(layers)} layers, saved dequantised"
