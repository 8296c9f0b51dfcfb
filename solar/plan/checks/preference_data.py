"""Preference stages need data that are pairs and have the sources that the stages name."""

from collections.abc import Iterator, Mapping

from solar.config.base import StageConfig
from solar.config.data import PrepareDataConfig, Task
from solar.config.preference import ChunkBy, DpoConfig, StepwiseDpoConfig
from solar.errors import hint


def source_problems(stage: StageConfig, stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """Data that are not pairs, and named sources that the data do not have."""
    if not isinstance(stage, DpoConfig | StepwiseDpoConfig):
        return
    data = stages.get(stage.data)
    if not isinstance(data, PrepareDataConfig):
        return
    if data.task is not Task.preference:
        yield f"data: '{stage.data}' prepares {data.task.value} data, expected preference pairs"
    named = {"sources": stage.sources} if isinstance(stage, DpoConfig) else {}
    if isinstance(stage, StepwiseDpoConfig):
        named = {f"steps.{number}.sources": step.sources for number, step in enumerate(stage.steps)}
    for key, names in named.items():
        for name in names:
            if name not in data.sources:
                yield f"{key}: found '{name}', which is no source of stages.{stage.data}{hint(name, data.sources)}"
    if isinstance(stage, StepwiseDpoConfig) and stage.chunk_by is ChunkBy.accuracy:
        steps, sources = len(stage.all_steps), len(data.sources)
        if steps not in (1, sources):
            yield f"steps: found {steps} with chunk_by accuracy, expected one for each of the {sources} of {stage.data}"
