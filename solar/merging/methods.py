"""Every merge method by name, with its paper.

Most methods are a weighted sum, with one weight a tensor and model; a function gives the weights. The others work
element by element: they thin out each model's change from the base, then add the changes or elect signs.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from solar.config.merging import Decay, MergeConfig, MergeMethod

Products = NDArray[np.float64]
"""Inner products [n, n] of the n models' tensors, or of their changes from the base where there is one."""


def average(weights: Sequence[float]) -> list[float]:
    """Shares of a whole.

    >>> average([2, 6])
    [0.25, 0.75]
    """
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def window(checkpoints: int, decay: Decay) -> list[float]:
    """Weights of checkpoints, oldest first, that sum each later update as if its learning rate had decayed.

    With weights c, the update that leads to checkpoint i counts sum(c[i:]), which the decay curve prescribes.

    >>> window(4, Decay.linear)
    [0.25, 0.25, 0.25, 0.25]
    >>> [round(weight, 3) for weight in window(4, Decay.sqrt)]
    [0.5, 0.207, 0.159, 0.134]
    """
    curves: dict[Decay, Callable[[float], float]] = {
        Decay.linear: lambda s: 1 - s,
        Decay.sqrt: lambda s: 1 - math.sqrt(s),
        Decay.cosine: lambda s: (1 + math.cos(math.pi * s)) / 2,
    }
    rates = [curves[decay](i / checkpoints) for i in range(checkpoints + 1)]
    return [now - later for now, later in itertools.pairwise(rates)]


def slerp(products: Products, t: float) -> list[float]:
    """Weights of two tensors, taken as flat vectors, that go along the arc between their directions.

    If they are almost parallel or opposite (|cosine| > 0.9995), or if one is zero, a straight line instead: the arc
    would be lost in rounding.

    At a right angle, half-way: sin 45 degrees of each.

    >>> [round(weight, 4) for weight in slerp(np.eye(2), 0.5)]
    [0.7071, 0.7071]
    """
    lengths = math.sqrt(products[0, 0]) * math.sqrt(products[1, 1])
    cosine = products[0, 1] / lengths if lengths > 0 else 1.0
    if abs(cosine) > 0.9995:
        return [1 - t, t]
    angle = math.acos(cosine)
    return [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]


def task_arithmetic(weights: Sequence[float], scale: float) -> list[float]:
    """Weights of the base and of each model that make base + scale * sum(weight * change).

    >>> task_arithmetic([1.0, 0.5], scale=0.5)
    [0.25, 0.5, 0.25]
    """
    scaled = [scale * weight for weight in weights]
    return [1 - math.fsum(scaled), *scaled]


def model_stock(products: Products) -> list[float]:
    """Weights of the base and of each of n models: t to their mean, 1 - t to the base, with t = n c / (1 + (n - 1) c).

    c is the mean cosine between two models' changes from the base. Where they cancel out (t without bound): the base.

    Changes at 60 degrees: c = 1/2, t = 2/3.

    >>> [round(weight, 4) for weight in model_stock(np.array([[1.0, 0.5], [0.5, 1.0]]))]
    [0.3333, 0.3333, 0.3333]
    """
    n = len(products)
    # One root of the product, not a product of two roots: equal changes then have a cosine of exactly 1.
    lengths = [[math.sqrt(products[i, i] * products[j, j]) for j in range(n)] for i in range(n)]
    cosines = [products[i, j] / lengths[i][j] if lengths[i][j] > 0 else 0.0 for i in range(n) for j in range(i)]
    cosine = math.fsum(cosines) / len(cosines) if cosines else 1.0
    denominator = 1 + (n - 1) * cosine
    t = n * cosine / denominator if denominator > 1e-6 else 0.0
    return [1 - t, *[t / n] * n]


class Thin(Enum):
    """Which elements of a model's change are kept."""

    largest = "largest"
    random = "random"


@dataclass(frozen=True)
class Linear:
    """A weighted sum; the weights of the base (where the method takes one) and of each model."""

    paper: str
    weights: Callable[[MergeConfig, Products], list[float]]
    needs_products: bool = False


@dataclass(frozen=True)
class Selective:
    """Element by element: changes are thinned out, then added, or merged by elected sign."""

    paper: str
    thin: Thin
    by_election: bool


def weights_of(config: MergeConfig) -> list[float]:
    """One weight a model."""
    return [1.0] * len(config.models) if config.weights is None else config.weights


def densities_of(config: MergeConfig) -> list[float]:
    """The share of its change that is kept of each model."""
    return [config.density or 1.0] * len(config.models) if config.densities is None else config.densities


def scale_of(config: MergeConfig) -> float:
    """The factor on the merged change."""
    return 1.0 if config.scale is None else config.scale


METHODS: dict[MergeMethod, Linear | Selective] = {
    MergeMethod.average: Linear("arXiv 2203.05482", lambda config, _: average(weights_of(config))),
    MergeMethod.window: Linear(
        "arXiv 2507.17634", lambda config, _: window(len(config.models), config.decay or Decay.linear)
    ),
    MergeMethod.slerp: Linear("Shoemake 1985", lambda config, products: slerp(products, config.t or 0.0), True),
    MergeMethod.task_arithmetic: Linear(
        "arXiv 2212.04089", lambda config, _: task_arithmetic(weights_of(config), scale_of(config))
    ),
    MergeMethod.model_stock: Linear("arXiv 2403.19522", lambda _, products: model_stock(products), True),
    MergeMethod.ties: Selective("arXiv 2306.01708", Thin.largest, by_election=True),
    MergeMethod.dare: Selective("arXiv 2311.03099", Thin.random, by_election=False),
    MergeMethod.dare_ties: Selective("arXiv 2311.03099", Thin.random, by_election=True),
}
