"""What happens to single elements: weighted sums, inner products, thinning out, election of signs.

All arrays are flat, of one length and in the wide format (`solar.weights.numbers`). A floating-point sum of three or
more numbers depends on their order, so the summands are put in the order of their bytes: models may come in any order.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solar.weights.numbers import Wide


def weighted_sum(arrays: Sequence[Wide], weights: Sequence[float]) -> Wide:
    """Sum of `weights[i] * arrays[i]`. An array of weight 0 is left out, even if it holds NaN or infinity.

    >>> weighted_sum([np.array([1.0, 2.0]), np.array([3.0, 6.0])], [0.5, 0.5]).tolist()
    [2.0, 4.0]
    """
    first, *others = [i for i in canonical_order(arrays, weights) if weights[i] != 0] or [0]
    total: Wide = np.multiply(arrays[first], float(weights[first]))
    scratch = np.empty_like(total)
    for i in others:
        total += np.multiply(arrays[i], float(weights[i]), out=scratch)
    return total


def canonical_order(arrays: Sequence[Wide], weights: Sequence[float]) -> list[int]:
    """An order of the (weight, array) pairs that does not depend on the order in which they are given."""
    if len(arrays) < 3:
        return list(range(len(arrays)))  # a sum of two does not depend on their order
    return sorted(range(len(arrays)), key=lambda i: (weights[i], arrays[i].tobytes()))


def inner_products(arrays: Sequence[Wide]) -> NDArray[np.float64]:
    """Matrix [n, n] of the inner products of n arrays."""
    products = np.zeros((len(arrays), len(arrays)))
    scratch = np.empty_like(arrays[0])
    for i, left in enumerate(arrays):
        for j, right in enumerate(arrays[: i + 1]):
            product = float(np.multiply(left, right, out=scratch).sum())
            if not math.isfinite(product):  # beyond float32: rare enough to be allowed to be slow
                product = float(np.multiply(left, right, dtype=np.float64).sum())
            products[i, j] = products[j, i] = product
    return products


def smallest_kept(magnitudes: Wide, density: float) -> float:
    """The smallest magnitude among the largest `density` (a share of all). Reorders `magnitudes`.

    >>> smallest_kept(np.array([0.1, 0.4, 0.2, 0.3]), density=0.5)
    0.3
    """
    count = max(1, int(density * magnitudes.size))
    magnitudes.partition(magnitudes.size - count)
    return float(magnitudes[magnitudes.size - count])


def drawn(size: int, density: float, seed: Sequence[int]) -> NDArray[np.bool_]:
    """A mask [size] that keeps each element with probability `density`; the same for the same seed on any machine."""
    generator = np.random.Philox(np.random.SeedSequence(list(seed)))
    numbers = generator.random_raw((size + 1) // 2).astype("<u8").view("<u4")[:size]
    return np.asarray(numbers < density * 2.0**32)


def add_changes(
    base: Wide, models: Sequence[Wide], masks: Sequence[NDArray[np.bool_]], weights: Sequence[float]
) -> Wide:
    """The base plus the weighted sum of each model's kept changes.

    >>> base, models = np.array([1.0, 1.0]), [np.array([3.0, 2.0])]
    >>> add_changes(base, models, [np.array([True, False])], [0.5]).tolist()
    [2.0, 1.0]
    """
    changes = [np.where(keep, model - base, 0) for model, keep in zip(models, masks, strict=True)]
    total = weighted_sum(changes, weights)
    merged = np.where(total == 0, base, base + total)  # where nothing changes, a zero keeps its sign
    # Where the weights of the kept changes sum to 1, the base cancels out: the mean of the models is exact.
    shares = weighted_sum([(change != 0).astype(base.dtype) for change in changes], weights)
    means = weighted_sum(
        [np.where(change != 0, model, 0) for model, change in zip(models, changes, strict=True)], weights
    )
    return np.where(shares == 1, means, merged)


def elect(base: Wide, models: Sequence[Wide], masks: Sequence[NDArray[np.bool_]], weights: Sequence[float]) -> Wide:
    """The weighted mean of the models whose kept change has the sign that the changes' weighted sum has (TIES, arXiv
    2306.01708, algorithm 1); the base where no model has a kept change. A sum of exactly 0 elects plus.

    Changes +3, +1, -2 from 0 sum to +2: the mean of the first two is left.

    >>> every = np.array([True])
    >>> elect(np.zeros(1), [np.array([3.0]), np.array([1.0]), np.array([-2.0])], [every] * 3, [1, 1, 1]).tolist()
    [2.0]
    """
    changes = [np.where(keep, model - base, 0) for model, keep in zip(models, masks, strict=True)]
    elected = np.where(weighted_sum(changes, weights) >= 0, 1, -1)
    agree = [np.sign(change) == elected for change in changes]
    votes = weighted_sum([agrees.astype(base.dtype) for agrees in agree], weights)
    # The mean is taken of the models, not of their changes: a model that is alone is then itself to the last bit.
    values = weighted_sum([np.where(agrees, model, 0) for agrees, model in zip(agree, models, strict=True)], weights)
    return np.where(votes != 0, values / np.where(votes != 0, votes, 1), base)
