"""The share of tokens of each source, from the configuration of the sources and their sizes."""

from collections.abc import Mapping

from solar.config.data import PrepareDataConfig
from solar.data.store.header import Mixture
from solar.errors import DataError


def mixture_of(config: PrepareDataConfig, tokens: Mapping[str, int]) -> Mixture:
    """The mixture of the training rows. `tokens`: source -> its tokens. Raises `DataError` for a source without any."""
    for name in config.sources:
        if not tokens.get(name):
            raise DataError(
                f"sources.{name}: no training sample is left of it; look at the reasons above, or drop the source"
            )
    most = max(tokens.values())
    weights = shares(
        {name: source.share for name, source in config.sources.items() if source.share is not None},
        {
            name: _weight(source.weight, tokens[name] / most, config.temperature)
            for name, source in config.sources.items()
            if source.share is None
        },
    )
    limits = {name: source.max_epochs for name, source in config.sources.items() if source.max_epochs is not None}
    switches = [(switch.at_tokens, shares({}, switch.weights)) for switch in config.switches]
    return Mixture(weights, limits, switches)


def _weight(weight: float | None, size: float, temperature: float | None) -> float:
    return weight if weight is not None else float(size ** (1 / (temperature or 1)))


def shares(fixed: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Shares of the tokens: those in `fixed`, and the rest divided by weight.

    >>> shares({"replay": 0.2}, {"web": 3, "math": 1})
    {'replay': 0.2, 'web': 0.6000000000000001, 'math': 0.2}
    """
    rest = 1 - sum(fixed.values())
    total = sum(weights.values())
    return {**fixed, **{name: rest * weight / total for name, weight in weights.items()}}
