"""Greedy soup: average only what helps (arXiv 2203.05482, recipe 1)."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solar.config.merging import MergeConfig, MergeMethod
from solar.merging.merge import merge
from solar.merging.publish import refuse_existing


@dataclass(frozen=True)
class SoupReport:
    """What went into a soup."""

    alone: list[float]
    """The score of each model, in the order given."""
    kept: list[int]
    """Places of the models in the soup, best first."""
    score: float
    """Of the soup; at least the best model's."""


def greedy_soup(
    models: Sequence[Path], target: Path, score: Callable[[Path], float], threads: int | None = None
) -> SoupReport:
    """Average the best model with each next one that does not lower `score` (of a model folder; higher is better).

    The score must come from data that no model and no later test has seen. Raises as `merge` does.
    """
    refuse_existing(target)
    alone = [score(model) for model in models]
    ranking = sorted(range(len(models)), key=lambda place: -alone[place])
    kept, best = ranking[:1], alone[ranking[0]]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.soup-") as pot:
        soup = average([models[place] for place in kept], Path(pot) / "best", threads)
        for place in ranking[1:]:
            tried = average([models[each] for each in [*kept, place]], Path(pot) / f"with_{place}", threads)
            reached = score(tried)
            if reached >= best:
                kept, best, soup = [*kept, place], reached, tried
        soup.rename(target)
    return SoupReport(alone, kept, best)


def average(models: Sequence[Path], target: Path, threads: int | None) -> Path:
    """The plain mean of models."""
    config = MergeConfig(kind="merge", models=[str(model) for model in models], method=MergeMethod.average)
    merge(models, target, config, threads=threads)
    return target
