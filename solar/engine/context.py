"""How and where a stage runs: what a stage function gets besides its configuration and inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from solar.artifacts.store import Artifact
from solar.config.base import StageConfig
from solar.config.run_context import RunContext as RunContext

Inputs = Mapping[str, Artifact]
"""Name of a stage that is read -> its artifact; `inputs[config.model].path` is a folder."""
Metrics = dict[str, Any]
"""What a stage reports of its result, in JSON types."""
ConfigT = TypeVar("ConfigT", bound=StageConfig, contravariant=True)


OVERRIDES = "overrides.txt"
"""File in a run's folder: the overrides of its command line, a line each."""


class Stage(Protocol[ConfigT]):
    """A stage is a function that knows neither Hydra nor the plan, and writes only below `output`."""

    def __call__(self, config: ConfigT, inputs: Inputs, output: Path, context: RunContext) -> Metrics: ...
