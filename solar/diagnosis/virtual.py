"""Run a model with its layers in another order, in memory: the same modules; nothing is copied or written.

The base's own forward pass is recorded first; each layer is then run with the arguments it was recorded with (masks,
positions, rotary embeddings). So the result does not depend on a configuration of the grown model, and can judge one.

Shapes: B sequences, T tokens, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solar.errors import PlanError


@dataclass(frozen=True)
class Call:
    """The arguments of a layer in the base's forward pass, without the stream, and its output."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


@dataclass(frozen=True)
class Pass:
    """One forward pass."""

    logits_BTV: Tensor
    stream: tuple[Tensor, ...]
    """The residual stream before each layer and after the last; each of shape BTH."""


class VirtualModel:
    """A model whose layers can be run in any order; while it runs, the `forward` of its layers is replaced."""

    def __init__(self, model: nn.Module, num_hidden_layers: int) -> None:
        self.model = model.eval()
        self.layers = find_layers(model, num_hidden_layers)
        self._calls: list[Call] = []
        self._input: Tensor | None = None
        self._forwards: list[Callable[..., Any]] = [layer.forward for layer in self.layers]

    @torch.no_grad()
    def record(self, input_ids_BT: Tensor) -> Pass:
        """The base's own forward pass, whose arguments later calls of `run` use.

        Raises `PlanError` if text alone does not reach every layer, for example where some layers attend to images.
        """
        calls: dict[int, Call] = {}
        stream: dict[int, Tensor] = {}

        def recording(index: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                hidden_BTH, args, kwargs = _split(args, kwargs)
                output = self._forwards[index](hidden_BTH, *args, **kwargs)
                stream[index], stream[index + 1] = hidden_BTH, _stream_of(output)
                calls[index] = Call(args, kwargs, output)
                return output

            return forward

        logits_BTV = self._forward(input_ids_BT, recording)
        idle = [index for index in range(len(self.layers)) if index not in calls]
        if idle:
            raise PlanError(
                f"layer {idle[0]} of {len(self.layers)} does not run on text alone, so nothing can be measured or "
                "compared; grow it with verify=load or verify=bytes"
            )
        self._calls = [calls[i] for i in range(len(self.layers))]
        self._input = input_ids_BT
        return Pass(logits_BTV, tuple(stream[i] for i in range(len(self.layers) + 1)))

    @torch.no_grad()
    def run(
        self, sources: Sequence[int], scales: dict[int, float] | None = None, weights: nn.ModuleList | None = None
    ) -> Pass:
        """The recorded input through base layers `sources`.

        `scales`: position -> factor on what the layer there writes. `weights`: for each position a layer whose weights
        the base layer takes on, and keeps.
        """
        assert self._input is not None, "record first"
        stream: list[Tensor] = []

        def replaying(index: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                hidden_BTH, _, _ = _split(args, kwargs)
                if index == 0:
                    stream.append(hidden_BTH)
                    for position, source in enumerate(sources):
                        if weights is not None:
                            self.layers[source].load_state_dict(weights[position].state_dict())
                        hidden_BTH = self.step(source, hidden_BTH, (scales or {}).get(position, 1.0))
                        stream.append(hidden_BTH)
                return _with_stream(self._calls[index].output, hidden_BTH)

            return forward

        logits_BTV = self._forward(self._input, replaying)
        return Pass(logits_BTV, tuple(stream))

    def step(self, source: int, hidden_BTH: Tensor, scale: float = 1.0) -> Tensor:
        """One base layer on a stream, with what it writes scaled; at scale 0 the stream stays as it is.

        A pre-norm layer reads the same from a scaled stream, so the stream is scaled down before the layer, up after.
        """
        if scale == 0:
            return hidden_BTH
        call = self._calls[source]
        quiet_BTH = hidden_BTH if scale == 1 else hidden_BTH / scale
        after_BTH = _stream_of(self._forwards[source](quiet_BTH, *call.args, **call.kwargs))
        return after_BTH if scale == 1 else after_BTH * scale

    def _forward(self, input_ids_BT: Tensor, forward_of: Callable[[int], Callable[..., Any]]) -> Tensor:
        with _exchanged(self.layers, [forward_of(i) for i in range(len(self.layers))]):
            logits: Tensor = self.model(input_ids=input_ids_BT, use_cache=False).logits
        return logits


def find_layers(model: nn.Module, num_hidden_layers: int) -> nn.ModuleList:
    """The decoder's stack of layers. Raises `PlanError` if the decoder has no stack of that length."""
    get_decoder: Any = getattr(model, "get_decoder", lambda: model)
    decoder: nn.Module = get_decoder()
    for root in (decoder, model):
        stacks = [
            (name.count("."), module)
            for name, module in root.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == num_hidden_layers
        ]
        if stacks:
            return min(stacks, key=lambda stack: stack[0])[1]
    raise PlanError(f"{type(model).__name__}: no stack of {num_hidden_layers} layers found in it")


@contextmanager
def _exchanged(layers: nn.ModuleList, forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    try:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
        yield
    finally:
        for layer in layers:
            del layer.forward


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The stream, and a layer's other arguments."""
    if args:
        return args[0], args[1:], kwargs
    rest = dict(kwargs)
    return rest.pop("hidden_states"), (), rest


def _stream_of(output: Any) -> Tensor:
    stream: Tensor = output[0] if isinstance(output, tuple | list) else output
    return stream


def _with_stream(output: Any, hidden_BTH: Tensor) -> Any:
    """A layer's recorded output with another stream in it."""
    return type(output)((hidden_BTH, *output[1:])) if isinstance(output, tuple | list) else hidden_BTH
