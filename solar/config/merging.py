"""How several models become one: the method and the numbers it takes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from solar.config.base import StageConfig, reference


class MergeMethod(StrEnum):
    """Merge methods by the name their papers gave them; `solar.merging.methods` says how each computes."""

    average = "average"
    """Weighted mean of any number of models; SOLAR's Average(a, b)."""
    slerp = "slerp"
    """Two models, along the arc between them, tensor by tensor; SOLAR's second method."""
    task_arithmetic = "task_arithmetic"
    """Base plus a weighted sum of what each model learnt on top of it."""
    ties = "ties"
    """Small changes dropped, signs elected, agreeing changes averaged."""
    dare = "dare"
    """Changes dropped at random, the rest enlarged, then added as task arithmetic does."""
    dare_ties = "dare_ties"
    """Changes dropped at random, the rest enlarged, then elected and averaged as TIES does."""
    model_stock = "model_stock"
    """Between the base and the mean of the models, as close to the mean as they agree."""
    window = "window"
    """Checkpoints of one run, oldest first, weighted as a learning-rate decay over them would."""


class Decay(StrEnum):
    """Learning-rate decays that a window of checkpoints can stand in for; s runs from 0 to 1 over the window."""

    linear = "linear"
    """1 - s: the plain mean."""
    sqrt = "sqrt"
    """1 - sqrt(s)."""
    cosine = "cosine"
    """(1 + cos(pi s)) / 2."""


TAKES = {
    MergeMethod.average: {"weights"},
    MergeMethod.slerp: {"t"},
    MergeMethod.task_arithmetic: {"base", "weights", "scale"},
    MergeMethod.ties: {"base", "weights", "scale", "density", "densities"},
    MergeMethod.dare: {"base", "weights", "scale", "density", "densities", "seed"},
    MergeMethod.dare_ties: {"base", "weights", "scale", "density", "densities", "seed"},
    MergeMethod.model_stock: {"base"},
    MergeMethod.window: {"decay"},
}
"""The settings each method reads; any other is refused, since it would change nothing."""

SETTINGS = ("base", "weights", "t", "scale", "density", "densities", "seed", "decay")
"""All that any method reads."""

OPTIONAL = {"weights", "scale", "densities"}
"""Settings that a method which takes them can do without."""


@dataclass
class MergeConfig(StageConfig):
    """Merge models of one shape into one, tensor by tensor. Tokenizer and configuration are the first model's."""

    models: list[str] = reference("model")
    """The models that are merged, in the order of `weights` and `densities`."""
    method: MergeMethod = MISSING
    """How each tensor is computed."""
    base: str | None = reference("model", None)
    """The model that all `models` were trained from; never one of them."""
    weights: list[float] | None = None
    """One weight for each model; null: equal weights. `average` divides the weights by their sum, TIES by the sum of
    those that agree; task arithmetic and DARE take them as they are (null: 1)."""
    t: float | None = None
    """Share of the way from the first model (0) to the second (1)."""
    scale: float | None = None
    """Factor on the merged change before it is added to the base (the papers' lambda); null: 1."""
    density: float | None = None
    """Share of each model's change that is kept, more than 0 to 1."""
    densities: list[float] | None = None
    """The density of each model, instead of one `density` for all."""
    seed: int | None = None
    """Seed of the changes that DARE drops."""
    decay: Decay | None = None
    """The learning-rate decay that `window` stands in for."""

    @property
    def in_words(self) -> str:
        """Method and settings, for one line.

        >>> MergeConfig(method=MergeMethod.average, models=["a", "b"], weights=[0.4, 0.6]).in_words
        'average, weights 0.4 0.6'
        """
        said = [self.method.value]
        for name in SETTINGS:
            value = getattr(self, name)
            if value is not None:
                said.append(f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}")
        return ", ".join(said)

    def problems(self) -> Iterator[str]:
        takes = TAKES[self.method]
        for name in SETTINGS:
            given = getattr(self, name) is not None
            if given and name not in takes:
                yield f"{name}: found {getattr(self, name)}, but {self.method} takes only {', '.join(sorted(takes))}"
            if not given and name in takes - OPTIONAL and not (name == "density" and self.densities is not None):
                yield f"{name}: not set, expected a value for {self.method}"
        yield from self._problems_with_models()
        yield from self._problems_with_numbers()

    def _problems_with_models(self) -> Iterator[str]:
        if self.models == ["*"]:
            return
        if self.method is MergeMethod.slerp and len(self.models) != 2:
            yield f"models: found {len(self.models)}, expected two for slerp; average takes any number"
        if not self.models:
            yield "models: found none, expected at least one"
        if self.weights is not None and len(self.weights) != len(self.models):
            yield f"weights: found {len(self.weights)} for {len(self.models)} models, expected one a model"
        if self.densities is not None and len(self.densities) != len(self.models):
            yield f"densities: found {len(self.densities)} for {len(self.models)} models, expected one a model"
        if self.base in self.models:
            yield f"base: found {self.base}, also one of the models; leave it out of them"

    def _problems_with_numbers(self) -> Iterator[str]:
        may_subtract = self.method in (MergeMethod.task_arithmetic, MergeMethod.dare)
        for weight in self.weights or []:
            if not math.isfinite(weight) or (weight < 0 and not may_subtract):
                yield f"weights: found {weight}, expected numbers of at least 0 (task_arithmetic and dare may subtract)"
        if self.weights and not any(self.weights):
            yield f"weights: found {self.weights}, expected at least one that is not 0"
        if self.weights and math.isinf(sum(map(abs, self.weights)) * max(1, abs(self.scale or 1))):
            yield f"weights: found {self.weights}, expected a finite sum (times scale)"
        if self.t is not None and not 0 <= self.t <= 1:
            yield f"t: found {self.t}, expected 0 to 1"
        if self.scale is not None and not math.isfinite(self.scale):
            yield f"scale: found {self.scale}, expected a finite number"
        if self.density is not None and self.densities is not None:
            yield "density: found beside densities, expected one of them"
        for density in [*([] if self.density is None else [self.density]), *(self.densities or [])]:
            if not 0 < density <= 1:
                yield f"density: found {density}, expected more than 0 to 1"
        if self.seed is not None and self.seed < 0:
            yield f"seed: found {self.seed}, expected 0 or more"
