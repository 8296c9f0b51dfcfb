"""Greedy soup: average only what helps (arXiv 2203.05482, recipe 1)."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from solar.config.merging import MergeConfig, MergeMethod
from solar.merging.merge import NOTE, merge
from solar.weights.publish import refuse_existing


@dataclass(frozen=True)
class Tried:
    """An average, and its score."""

    models: list[str]
    score: float


@dataclass(frozen=True)
class SoupReport:
    """The models of a soup, and all scores."""

    alone: dict[str, float]
    """The score of each model."""
    tried: list[Tried]
    """In order. An average that lowered the score was dropped."""
    kept: list[str]
    """The models in the soup, best first."""
    score: float
    """Of the soup; at least the best model's."""


def greedy_soup(
    models: Mapping[str, Path], target: Path, score: Callable[[Path], float], threads: int | None = None
) -> SoupReport:
    """Average the best model with each next one that does not lower `score` (of a model folder; higher is better).

    The score must come from data that no model and no later test has seen. Raises as `merge` does.
    """
    refuse_existing(target)
    alone = {name: score(folder) for name, folder in models.items()}
    ranking = sorted(models, key=lambda name: -alone[name])
    kept, best = ranking[:1], alone[ranking[0]]
    tried: list[Tried] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.soup-") as pot:
        soup = average(models, kept, Path(pot) / "best", threads)
        for name in ranking[1:]:
            candidate = average(models, [*kept, name], Path(pot) / f"{len(tried)}", threads)
            tried.append(Tried([*kept, name], score(candidate)))
            if tried[-1].score >= best:
                kept, best, soup = tried[-1].models, tried[-1].score, candidate
        soup.rename(target)
    return SoupReport(alone, tried, kept, best)


def average(models: Mapping[str, Path], names: Sequence[str], target: Path, threads: int | None) -> Path:
    """The plain mean of some of the models."""
    config = MergeConfig(kind="merge", models=list(names), method=MergeMethod.average)
    merge([models[name] for name in names], target, config, threads=threads)
    note = json.loads((target / NOTE).read_text(encoding="utf-8"))
    (target / NOTE).write_text(json.dumps(note | {"chosen_by": "greedy soup"}, indent=2) + "\n", encoding="utf-8")
    return target
