"""A stage that branches off another training must agree with it in all that the optimizer's state depends on."""

from collections.abc import Iterator, Mapping

from solar.config.base import StageConfig
from solar.config.plain import as_plain
from solar.config.training import TrainConfig

EQUAL = (
    "kind", "data", "seed", "precision", "global_batch_size", "optimizer",
    "trainable", "unfreeze_at", "lr_factors", "adapter",
)  # fmt: skip
"""What optimizer state and the place in the data depend on; schedule, duration, guard and average may differ."""


def branch_problems(stage: StageConfig, stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """What is wrong with a stage that has `branch`, as `key: what was found, what was expected`."""
    if not isinstance(stage, TrainConfig):
        return
    if stage.keep_optimizer and stage.unfreeze_at is not None:
        yield "keep_optimizer: found true with unfreeze_at, which a branch would begin anew; expected one of the two"
    if not stage.branch or stage.model not in stages:
        return
    trunk = stages[stage.model]
    if not isinstance(trunk, TrainConfig) or not trunk.keep_optimizer:
        yield f"branch: '{stage.model}' keeps no optimizer state; set stages.{stage.model}.keep_optimizer to true"
        return
    for key in EQUAL:
        found, expected = as_plain(getattr(stage, key)), as_plain(getattr(trunk, key))
        if found != expected:
            yield f"{key}: found {found}, expected {expected} as in '{stage.model}', which it branches off"
