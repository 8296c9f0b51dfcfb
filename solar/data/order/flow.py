"""The rate at which the tokens of each source flow, piecewise constant: shares, caps on epochs, switches."""

from bisect import bisect_right
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from solar.data.store.header import Mixture

Floats = npt.NDArray[np.float64]


@dataclass
class Flow:
    """Tokens of one source as a function of the tokens read from all sources together."""

    moments: list[float]
    """Tokens of all sources where the rate of this source changes; the first is 0."""
    amounts: list[float]
    """Tokens of this source that are delivered before each moment."""
    rates: list[float]
    """Share of this source after each moment."""

    @property
    def end(self) -> float:
        """Tokens of this source that are delivered in all; infinite if the flow never ends."""
        return inf if self.rates[-1] > 0 else self.amounts[-1]

    def delivered(self, tokens: float) -> float:
        """Tokens of this source among the first `tokens` of all sources."""
        segment = max(0, bisect_right(self.moments, tokens) - 1)
        return self.amounts[segment] + self.rates[segment] * (tokens - self.moments[segment])

    def due(self, delivered: Floats) -> Floats:
        """Tokens of all sources when this source has delivered `delivered` tokens; infinite if it never does."""
        segment = np.maximum(np.searchsorted(self.amounts, delivered, side="left") - 1, 0)
        amounts, rates, moments = (np.asarray(values) for values in (self.amounts, self.rates, self.moments))
        rate = rates[segment]
        with np.errstate(divide="ignore"):
            due: Floats = np.where(rate > 0, moments[segment] + (delivered - amounts[segment]) / rate, inf)
        return due


def flows(mixture: Mixture, tokens: dict[str, int]) -> list[Flow]:
    """The flow of each source, in the order of `tokens` (source -> its tokens).

    >>> [round(flow.delivered(300)) for flow in flows(Mixture({"a": 3, "b": 1}, {"a": 1}), {"a": 150, "b": 10})]
    [150, 150]
    """
    limits = {name: mixture.max_epochs.get(name, inf) * count if count else 0.0 for name, count in tokens.items()}
    flow_of = {name: Flow([], [], []) for name in tokens}
    delivered = dict.fromkeys(tokens, 0.0)
    phases = [(0, mixture.weights), *mixture.switches]
    moment = 0.0
    for number, (_, weights) in enumerate(phases):
        end = phases[number + 1][0] if number + 1 < len(phases) else inf
        while moment < end:
            active = {name: weights.get(name, 0.0) for name in tokens if delivered[name] < limits[name]}
            total = sum(active.values())
            rates = {name: active.get(name, 0.0) / total if total else 0.0 for name in tokens}
            for name, flow in flow_of.items():
                flow.moments.append(moment)
                flow.amounts.append(delivered[name])
                flow.rates.append(rates[name])
            if not total:
                break  # these sources are used up; the next weights hold from here
            ends = {name: (limits[name] - delivered[name]) / rates[name] for name in tokens if rates[name] > 0}
            step = min(end - moment, *ends.values())
            if step == inf:
                return list(flow_of.values())
            for name, rate in rates.items():
                exhausted = ends.get(name) == step
                delivered[name] = limits[name] if exhausted else delivered[name] + rate * step
            moment += step
    return list(flow_of.values())
