"""Whether a sweep's objective can be a number at all, found out before the work."""

from collections.abc import Collection, Mapping

from solar.config.base import StageConfig
from solar.config.evaluation import EvaluateConfig
from solar.errors import ConfigError, hint


def check_objective(objective: str | None, until: str | None, stages: Mapping[str, StageConfig]) -> None:
    """Raises `ConfigError` for what no stage of the plan will say; `stages` are those that the run reaches."""
    if objective is None:
        return
    name, *path = objective.split(".")
    if name not in stages:
        stops = f"; until={until} stops before it" if until else ""
        raise ConfigError(f"objective: '{objective}' needs the stage {name}, which does not run{stops}")
    if not path:
        raise ConfigError(f"objective: found '{objective}', expected stage.metric")
    stage = stages[name]
    if not isinstance(stage, EvaluateConfig):
        return  # what other stages measure is known when they have run
    if path[0] not in stage.models:
        raise ConfigError(
            f"objective: '{objective}', but {name} does not score '{path[0]}'{hint(path[0], stage.models)}"
        )
    metric, known = ".".join(path[1:]), measured(stage)
    if metric not in known and not (stage.choices and metric.startswith("accuracy_")):
        raise ConfigError(f"objective: '{objective}', but {name} does not measure '{metric}'{hint(metric, known)}")


def measured(stage: EvaluateConfig) -> Collection[str]:
    """What an evaluation says of each model; `accuracy_<task>` comes with the tasks of its choices."""
    known = []
    if stage.data is not None:
        known += ["nats_per_token", "bits_per_byte"]
    if stage.choices is not None:
        known += ["choice_accuracy"]
    if stage.harness:
        known += ["harness_mean"]
    return known
