"""Trace, in a process of its own, which weights of a layer write to the residual stream.

A layer with random weights is run while every operation is watched. The stream is the layer's input and every sum of
the stream and another tensor. Each other tensor carries the parameters of the last linear map it went through; when it
is added to the stream, these parameters are writers. Then the result is tested: with all writers at zero, the layer
must return its input bit for bit, and with any of them left as it was, the layer must not.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from solar.diagnosis.virtual import VirtualModel
from solar.errors import PlanError
from solar.growth.process import answer
from solar.growth.remap.decoder import split_layer
from solar.network.folder import read_config
from solar.network.loading import model_class
from solar.weights.folder import CONFIG_FILE, open_folder
from solar.weights.header import FLOAT_DTYPES
from solar.weights.json_file import write_json
from solar.weights.values import read_values

_LINEAR = {"mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "matmul", "_grouped_mm", "mv", "addmv", "einsum"}
_SAME_VALUES = {
    *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "unsqueeze", "squeeze", "expand", "slice"),
    *("clone", "contiguous", "_to_copy", "detach", "alias", "native_dropout", "split", "chunk", "unbind", "to"),
    *("copy_", "lift_fresh", "as_strided", "select"),
}
_PICKS = {"index", "index_select"}
_TOKENS = 6


class ResidualTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches a layer's operations. `writers`: names of the parameters that write to the stream."""

    def __init__(self, layer: nn.Module, stream: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept: list[Any] = [stream]
        self._stream = {id(stream)}
        self._parameters = {id(parameter): name for name, parameter in layer.named_parameters()}
        self._carried: dict[int, frozenset[str]] = {}
        self.writers: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self._kept.extend(outputs)
        self._follow(func.overloadpacket.__name__, inputs, outputs)
        return result

    def carried(self, tensor: Tensor) -> frozenset[str]:
        """Parameters of the last linear maps that a tensor went through."""
        return self._carried.get(id(tensor), frozenset())

    def is_stream(self, tensor: Tensor) -> bool:
        return id(tensor) in self._stream

    def _follow(self, operation: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        parameters = frozenset(self._parameters[id(tensor)] for tensor in inputs if id(tensor) in self._parameters)
        streams = [tensor for tensor in inputs if self.is_stream(tensor)]
        others = (self.carried(tensor) for tensor in inputs if not self.is_stream(tensor))
        carried: frozenset[str] = frozenset().union(*others)
        if operation in _SAME_VALUES | _PICKS and inputs and id(inputs[0]) in self._parameters:
            self._parameters |= {id(output): self._parameters[id(inputs[0])] for output in outputs}
        elif streams and (operation in _SAME_VALUES or self._scales(operation, inputs)):
            self._stream |= {id(output) for output in outputs}
        elif streams and operation in ("add", "add_", "sub", "sub_"):
            self.writers |= carried | parameters
            self._stream |= {id(output) for output in outputs}
        elif not streams or operation in _LINEAR:
            adds_bias = operation in ("add", "add_", "native_layer_norm")
            if operation in _LINEAR and parameters:
                names = parameters
            else:
                names = carried | (parameters if adds_bias else frozenset())
            self._carried |= {id(output): names for output in outputs}

    def _scales(self, operation: str, inputs: list[Tensor]) -> bool:
        """Whether the operation multiplies or divides by a number."""
        return operation in ("mul", "mul_", "div", "div_") and (
            len(inputs) == 1 or any(tensor.ndim == 0 for tensor in inputs)
        )


def trace(request: dict[str, Any]) -> dict[str, Any]:
    """Names in files of the tensors that write to the stream, and whether the output grows in proportion to them.

    `config`: the config.json of a small model; `path`: the keys that lead to the decoder's part of it.
    """
    model = _random_model(request["config"], request["path"])
    virtual = VirtualModel(model, request["num_hidden_layers"])
    vocab_size = model.config.get_text_config(decoder=True).vocab_size
    shape = virtual.record(torch.arange(_TOKENS)[None] % vocab_size).stream[0].shape
    linear = True
    for index, layer in enumerate(virtual.layers):
        hidden_BTH = torch.randn(shape, generator=torch.Generator().manual_seed(index))
        linear &= _silence(layer, hidden_BTH, partial(virtual.step, index))
    return {"writers": _silent_tensors(model), "linear": linear}


def _silent_tensors(model: Any) -> list[str]:
    """Names in the model's files of the float tensors of its layers that are all zero."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = open_folder(Path(folder))
        return [
            name
            for name, tensor in saved.tensors.items()
            if split_layer(name) and tensor.dtype in FLOAT_DTYPES
            if not read_values(tensor, 0, tensor.parameters).any()
        ]


def _random_model(config: dict[str, Any], path: list[str]) -> Any:
    """The decoder (alone, where `transformers` has a class for it) with parameters far from special values."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    with TemporaryDirectory() as folder:
        write_json(Path(folder) / CONFIG_FILE, config)
        loaded = read_config(Path(folder))
    own = loaded
    for key in path:
        own = getattr(own, key)
    alone = type(own) in MODEL_FOR_CAUSAL_LM_MAPPING
    loaded = own if alone else loaded
    loaded._attn_implementation = "eager"
    build = AutoModelForCausalLM.from_config if alone else model_class(loaded)._from_config
    model = build(loaded).float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.2 + 0.05)
            if parameter.ndim > 1:
                parameter.mul_(torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1)
    return model


@torch.no_grad()
def _silence(layer: nn.Module, hidden_BTH: Tensor, step: Callable[[Tensor], Tensor]) -> bool:
    """Set a layer's writers to zero. Returns whether doubling any of them, alone, doubles its output.

    Raises `PlanError` if the layer with zero writers is not the identity.
    """
    with ResidualTrace(layer, hidden_BTH) as watched:
        out_BTH = step(hidden_BTH)
    parameters = dict(layer.named_parameters())
    values = {name: parameters[name].clone() for name in watched.writers}
    for name in values:
        parameters[name].zero_()
    if not watched.is_stream(out_BTH) or not torch.equal(step(hidden_BTH), hidden_BTH):
        raise PlanError(
            f"init: zero_out found, but {type(layer).__name__} does not return its input when the weights that write "
            f"to the residual stream ({', '.join(sorted(values)) or 'none found'}) are zero; choose another init"
        )
    for name in sorted(values, key=lambda name: (values[name].numel(), name)):
        parameters[name].copy_(values[name])
        if torch.equal(step(hidden_BTH), hidden_BTH):
            del values[name]
        parameters[name].mul_(name not in values)
    return all(_is_linear(parameters[name], value, hidden_BTH, step) for name, value in values.items())


def _is_linear(parameter: Tensor, value: Tensor, hidden_BTH: Tensor, step: Callable[[Tensor], Tensor]) -> bool:
    written = []
    for factor in (1.0, 2.0, 0.0):
        parameter.copy_(value * factor)
        written.append(step(hidden_BTH) - hidden_BTH)
    return torch.allclose(2 * written[0], written[1], rtol=1e-3, atol=1e-4 * float(written[1].abs().max()))


if __name__ == "__main__":
    sys.exit(answer(trace))
