"""What a stage is given besides its configuration and inputs: how and where it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from solar.artifacts.store import Artifact
from solar.config.base import StageConfig
from solar.config.run_context import RunContext as RunContext

Inputs = Mapping[str, Artifact]
"""Names of the stages it reads -> what they left; `inputs[config.model].path` is a folder."""
Metrics = dict[str, Any]
"""What a stage says of its result, in types JSON knows."""
ConfigT = TypeVar("ConfigT", bound=StageConfig, contravariant=True)


OVERRIDES = "overrides.txt"
"""File of a run's folder: what its command line said, a line each."""


class Stage(Protocol[ConfigT]):
    """A stage is a function; it knows neither Hydra nor the plan. It writes below `output` and nowhere else."""

    def __call__(self, config: ConfigT, inputs: Inputs, output: Path, context: RunContext) -> Metrics: ...
