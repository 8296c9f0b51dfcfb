"""Whether a stage of the plan will measure the sweep's objective."""

from collections.abc import Collection, Mapping

from solar.config.base import StageConfig
from solar.config.evaluation import EvaluateConfig
from solar.errors import ConfigError, hint


def check_objective(objective: str | None, until: str | None, stages: Mapping[str, StageConfig]) -> None:
    """Raises `ConfigError` for an objective that no stage measures; `stages` are those that the run reaches."""
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
        return  # the metrics of other kinds are known only after they ran
    if path[0] not in stage.models:
        raise ConfigError(
            f"objective: '{objective}', but {name} does not score '{path[0]}'{hint(path[0], stage.models)}"
        )
    metric, known = ".".join(path[1:]), measured(stage)
    if metric not in known and not (stage.choices and metric.startswith("accuracy_")):
        raise ConfigError(f"objective: '{objective}', but {name} does not measure '{metric}'{hint(metric, known)}")


def measured(stage: EvaluateConfig) -> Collection[str]:
    """Metrics of each model in an evaluation; `accuracy_<task>` depends on the tasks of its choices."""
    known = []
    if stage.data is not None:
        known += ["nats_per_token", "bits_per_byte"]
    if stage.choices is not None:
        known += ["choice_accuracy"]
    if stage.harness:
        known += ["harness_mean"]
    return known
