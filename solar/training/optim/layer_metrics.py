"""Numbers of each layer, taken while a step is made: they cost memory and time, so only at some steps."""

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
    """Looks at every `every_steps`-th step; `seen` holds what the last step showed, empty at all others.

    `layer_grad_norm/07` is the norm of layer 7's gradient before clipping; `layer_update_ratio/07` the norm of what the
    step changed in its weights, as a share of theirs; `twin_divergence/07` how far the added layer 7 is from the layer
    with the same source: 1 - cosine of their matrices. A look holds a copy of the trained weights until the step is
    done.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self.every_steps: int | None = None
        self.layers = decoder_layers(network)
        self.twins = twins(getattr(network.config, PROVENANCE_KEY, None) or {})
        self.seen: dict[str, float] = {}

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around clipping and update of step `number`, counted from 1."""
        self.seen = {}
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
                self.seen[f"layer_grad_norm/{layer:02d}"] = float(norms[layer])
                self.seen[f"layer_update_ratio/{layer:02d}"] = float(_norm(change) / _norm(old))
        for copy, original in self.twins:
            self.seen[f"twin_divergence/{copy:02d}"] = divergence(self.layers[copy], self.layers[original])


def twins(grown: dict[str, Any]) -> list[tuple[int, int]]:
    """Each added layer and the base's own layer with the same source, by their places in the grown model.

    >>> twins({"layers": [0, 1, 2, 1, 2, 3], "new": [3, 4]})
    [(3, 1), (4, 2)]
    """
    layers, new = grown.get("layers", []), set(grown.get("new", []))
    own = {source: place for place, source in enumerate(layers) if place not in new}
    return [(place, own[layers[place]]) for place in sorted(new) if layers[place] in own]


@torch.no_grad()
def divergence(one: nn.Module, other: nn.Module) -> float:
    """1 - cosine of two layers' matrices, from their difference: near 0, the cosine itself would be rounding error.

    >>> a, b = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(a.weight, 1.0), nn.init.constant_(b.weight, 3.0)
    >>> round(divergence(a, b), 6)
    0.0
    >>> b.weight.data[0, 0] = 0.0
    >>> round(divergence(a, b), 6)  # 45 degrees
    0.292893
    """
    left = [weight.detach() for weight in one.parameters() if weight.ndim > 1]
    right = [weight.detach() for weight in other.parameters() if weight.ndim > 1]
    apart = float(_norm([a.float() - b.float() for a, b in zip(left, right, strict=True)]))
    sizes = float(_norm(left)), float(_norm(right))
    if not sizes[0] * sizes[1]:
        return 0.0 if sizes[0] == sizes[1] else 1.0
    return max(0.0, apart**2 - (sizes[0] - sizes[1]) ** 2) / (2 * sizes[0] * sizes[1])


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Norm of all numbers together, in float32 at least, also where they are sharded."""
    return whole(get_total_norm([tensor.float() for tensor in tensors]))
