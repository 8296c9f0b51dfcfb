"""Numbers of each layer, measured during a step; only at some steps, since they cost memory and time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from solar.growth.provenance import PROVENANCE_KEY
from solar.training.checkpoint.tensor_file import whole
from solar.training.distributed.sharding import decoder_layers


class LayerWatch:
    """Measures every `every_steps`-th step; `measured` holds the numbers of the last step, if it was such a step.

    `layer_grad_norm/07`: norm of layer 7's gradient before clipping. `layer_update_ratio/07`: norm of the step's change
    of layer 7's weights, divided by the norm of the weights. `twin_divergence/07`: 1 - cosine between the matrices of
    the added layer 7 and of the layer with the same source. During a measured step the trained weights are held twice.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self.every_steps: int | None = None
        self.layers = decoder_layers(network)
        in_few_bits = any(not weight.is_floating_point() for weight in network.parameters())
        self.twins = [] if in_few_bits else twins(getattr(network.config, PROVENANCE_KEY, None) or {})
        self.measured: dict[str, float] = {}

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Enclose clipping and update of step `number`, counted from 1."""
        self.measured = {}
        if self.every_steps is None or number % self.every_steps:
            yield
            return
        trained = [[weight for weight in layer.parameters() if weight.grad is not None] for layer in self.layers]
        norms = [_norm([weight.grad for weight in weights if weight.grad is not None]) for weights in trained]
        before = [[weight.detach().clone() for weight in weights] for weights in trained]
        yield
        for layer, (weights, old) in enumerate(zip(trained, before, strict=True)):
            if weights:
                change = [weight.detach() - value for weight, value in zip(weights, old, strict=True)]
                self.measured[f"layer_grad_norm/{layer:02d}"] = float(norms[layer])
                self.measured[f"layer_update_ratio/{layer:02d}"] = float(_norm(change) / _norm(old))
        for copy, original in self.twins:
            self.measured[f"twin_divergence/{copy:02d}"] = divergence(self.layers[copy], self.layers[original])


def twins(grown: dict[str, Any]) -> list[tuple[int, int]]:
    """Pairs of positions in the grown model: an added layer, and the base's own layer with the same source.

    >>> twins({"layers": [0, 1, 2, 1, 2, 3], "new": [3, 4]})
    [(3, 1), (4, 2)]
    """
    layers, new = grown.get("layers", []), set(grown.get("new", []))
    own = {source: place for place, source in enumerate(layers) if place not in new}
    return [(place, own[layers[place]]) for place in sorted(new) if layers[place] in own]


@torch.no_grad()
def divergence(first: nn.Module, second: nn.Module) -> float:
    """1 - cosine of two layers' matrices. Computed from their difference, since 1 - cosine cancels near 0.

    >>> a, b = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(a.weight, 1.0), nn.init.constant_(b.weight, 3.0)
    >>> round(divergence(a, b), 6)
    0.0
    >>> b.weight.data[0, 0] = 0.0
    >>> round(divergence(a, b), 6)  # 45 degrees
    0.292893
    """
    left = [weight.detach() for weight in first.parameters() if weight.ndim > 1]
    right = [weight.detach() for weight in second.parameters() if weight.ndim > 1]
    distance = float(_norm([a.float() - b.float() for a, b in zip(left, right, strict=True)]))
    sizes = float(_norm(left)), float(_norm(right))
    if not sizes[0] * sizes[1]:
        return 0.0 if sizes[0] == sizes[1] else 1.0
    return max(0.0, distance**2 - (sizes[0] - sizes[1]) ** 2) / (2 * sizes[0] * sizes[1])


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Norm of all numbers together, in float32 at least; sharded tensors are gathered."""
    return whole(get_total_norm([tensor.float() for tensor in tensors]))
