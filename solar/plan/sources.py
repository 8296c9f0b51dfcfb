"""Names of sources that one stage uses and another defines."""

from collections.abc import Iterator, Mapping

from solar.config.base import StageConfig
from solar.config.data import PrepareDataConfig
from solar.config.preference import DpoConfig, StepwiseDpoConfig
from solar.plan.graph import hint


def source_problems(stage: StageConfig, stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """Sources that a preference stage trains on, but its data do not have."""
    if not isinstance(stage, DpoConfig | StepwiseDpoConfig):
        return
    data = stages.get(stage.data)
    named = {"sources": stage.sources} if isinstance(stage, DpoConfig) else {}
    if isinstance(stage, StepwiseDpoConfig):
        named = {f"steps.{number}.sources": step.sources for number, step in enumerate(stage.steps)}
    for key, names in named.items():
        for name in names:
            if isinstance(data, PrepareDataConfig) and name not in data.sources:
                yield f"{key}: found '{name}', which is no source of stages.{stage.data}{hint(name, data.sources)}"
