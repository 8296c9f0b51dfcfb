"""lm-evaluation-harness behind one function."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from solar.config.evaluation import HarnessTaskConfig
from solar.errors import ConfigError, StageError


def check_installed() -> None:
    """Raises `StageError` if the extra `eval` is not installed; imports nothing."""
    if find_spec("lm_eval") is None or find_spec("accelerate") is None:
        raise StageError("harness: needs lm-evaluation-harness; pip install 'solar[eval]', or set harness to {}")


def harness_scores(
    model: Any,
    tokenizer: Any,
    tasks: dict[str, HarnessTaskConfig],
    limit: int | None = None,
    batch_size: int = 1,
    own_tasks: Path | None = None,
) -> dict[str, Any]:
    """`harness`: name -> score from 0 to 1; `harness_mean`: their unweighted mean (H6, where they are its six).

    A group of tasks (MMLU) scores the unweighted mean of its subjects, as the Open LLM Leaderboard did.
    `own_tasks` is a folder of task files that stands in for the harness's own.

    Raises:
        StageError: the extra `eval` is not installed.
        ConfigError: a task or metric the harness does not know.
    """
    check_installed()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # The default tree holds thousands of files; it is scanned only if it is wanted.
    manager = TaskManager(include_path=str(own_tasks), include_defaults=False) if own_tasks else TaskManager()
    reader = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    scores = {}
    for name, task in tasks.items():
        if task.task not in manager.all_tasks:
            raise ConfigError(f"harness.{name}.task: {task.task} is no task of lm-evaluation-harness")
        found = simple_evaluate(
            reader,
            tasks=[task.task],
            num_fewshot=task.num_fewshot,
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=0,
        )
        scores[name] = _score(found, task, name)
    return {"harness": scores, "harness_mean": sum(scores.values()) / len(scores)}


def _score(found: dict[str, Any], task: HarnessTaskConfig, name: str) -> float:
    leaves = _leaves(task.task, found.get("group_subtasks", {}))
    values = []
    for leaf in leaves:
        result = found["results"][leaf]
        key = task.metric if task.metric in result else f"{task.metric},none"
        if key not in result:
            known = ", ".join(sorted(key for key, value in result.items() if isinstance(value, float)))
            raise ConfigError(f"harness.{name}.metric: {task.metric} is not measured, expected one of {known}")
        values.append(float(result[key]))
    return sum(values) / len(values)


def _leaves(task: str, groups: dict[str, list[str]]) -> list[str]:
    """The tasks that a group is made of, through groups of groups."""
    return [leaf for part in groups[task] for leaf in _leaves(part, groups)] if groups.get(task) else [task]
