"""What is measured of a model, and what of a run is shown."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from omegaconf import MISSING

from solar.config.base import StageConfig, reference


@dataclass
class HarnessTaskConfig:
    """One task of lm-evaluation-harness."""

    task: str = MISSING
    """Name of the task in the harness."""
    num_fewshot: int = MISSING
    """Solved examples in front of each question."""
    metric: str = MISSING
    """Key of the score in the harness's results."""


@dataclass
class EvaluateConfig(StageConfig):
    """Score models side by side."""

    models: list[str] = reference("model")
    """Stages whose models are scored; `["*"]` is every model of the plan."""
    data: str | None = reference("tokens", None)
    """Tokens whose `valid` split is read: loss in nats per token, and bits per byte."""
    max_tokens: int | None = None
    """Read at most this many tokens of `data`; null: read all."""
    choices: str | None = reference("text", None)
    """A text stage with `choices.jsonl`: which of several answers the model finds likeliest."""
    max_choices: int | None = None
    """Ask at most this many questions of each task."""
    harness: dict[str, HarnessTaskConfig] = field(default_factory=dict)
    """Name in the table -> a task of lm-evaluation-harness (extra `eval`)."""
    harness_limit: int | None = None
    """Score only this many examples of each harness task, from the first on: a rehearsal, not a result."""

    def problems(self) -> Iterator[str]:
        if not self.models:
            yield "models: found none, expected stages whose models are scored, or ['*'] for all"
        for name in ("max_tokens", "max_choices", "harness_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: found {value}, expected at least 1 or null"
        if self.data is None and self.choices is None and not self.harness:
            yield "data, choices, harness: none given, expected at least one thing to measure"
        for name, task in self.harness.items():
            if task.num_fewshot < 0:
                yield f"harness.{name}.num_fewshot: found {task.num_fewshot}, expected 0 or more"


@dataclass
class ReportConfig(StageConfig):
    """One HTML page about a run."""

    of: list[str] = reference("any", ["*"])
    """Stages it shows; `["*"]` is every other stage."""
