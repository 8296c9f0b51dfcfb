"""Scores of lm-evaluation-harness."""

from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solar.config.evaluation import HarnessTaskConfig
from solar.errors import ConfigError, StageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_installed() -> None:
    """Raise `StageError` unless the extra `eval` is installed; nothing is imported."""
    if find_spec("lm_eval") is None or find_spec("accelerate") is None:
        raise StageError("harness: needs lm-evaluation-harness; pip install 'solar[eval]', or set harness to {}")


def harness_scores(
    network: "PreTrainedModel",
    tokenizer: Any,
    tasks: dict[str, HarnessTaskConfig],
    limit: int | None = None,
    own_tasks: Path | None = None,
) -> dict[str, Any]:
    """`harness`: name -> score from 0 to 1; `harness_mean`: their unweighted mean (H6, where they are its six).

    A group of tasks (MMLU) scores the unweighted mean of its subjects, as the Open LLM Leaderboard did.
    `own_tasks`: a folder of task files that replaces the harness's own. On CUDA, the harness looks for the largest
    batch that fits, and weights in float32 are multiplied in bfloat16; elsewhere questions are read one by one.

    Raises:
        StageError: the extra `eval` is not installed.
        ConfigError: the harness does not know a task or metric.
    """
    check_installed()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from solar.data.encode.tokenizer import without_suffix
    from solar.network.isolation import own_attention

    # The harness's own tree holds thousands of files, so it is scanned only if no other is given.
    manager = TaskManager(include_path=str(own_tasks), include_defaults=False) if own_tasks else TaskManager()
    scores = {}
    with own_attention(network), redirect_stdout(StringIO()):  # the harness prints the size of its batches
        reader = HFLM(pretrained=network, tokenizer=without_suffix(tokenizer), **_speed(network))
        for name, task in tasks.items():
            if task.task not in manager.all_tasks:
                raise ConfigError(f"harness.{name}.task: {task.task} is no task of lm-evaluation-harness")
            results = simple_evaluate(
                reader,
                tasks=[task.task],
                num_fewshot=task.num_fewshot,
                limit=limit,
                task_manager=manager,
                log_samples=False,
                bootstrap_iters=0,
            )
            scores[name] = _score(results, task, name)
    return {"harness": scores, "harness_mean": sum(scores.values()) / len(scores)}


def _speed(network: "PreTrainedModel") -> dict[str, Any]:
    """How the harness reads on the network's device."""
    if network.device.type != "cuda":
        return {"batch_size": 1}
    return {"batch_size": "auto"} | ({"mixed_precision_dtype": "bfloat16"} if _in_float32(network) else {})


def _in_float32(network: "PreTrainedModel") -> bool:
    return str(network.dtype) == "torch.float32"


def _score(results: dict[str, Any], task: HarnessTaskConfig, name: str) -> float:
    leaves = _leaves(task.task, results.get("group_subtasks", {}))
    values = []
    for leaf in leaves:
        result = results["results"][leaf]
        key = task.metric if task.metric in result else f"{task.metric},none"
        if key not in result:
            known = ", ".join(sorted(key for key, value in result.items() if isinstance(value, float)))
            raise ConfigError(f"harness.{name}.metric: {task.metric} is not measured, expected one of {known}")
        values.append(float(result[key]))
    return sum(values) / len(values)


def _leaves(task: str, groups: dict[str, list[str]]) -> list[str]:
    """The tasks of a group, and of the groups inside it."""
    return [leaf for part in groups[task] for leaf in _leaves(part, groups)] if groups.get(task) else [task]
