"""The answer to "was it the depth, or the further training?": the ungrown base, trained beside the grown model."""

import copy
from collections.abc import Mapping
from dataclasses import fields, replace

from solar.config.base import StageConfig
from solar.config.data import PrepareDataConfig
from solar.config.duration import Duration, Unit
from solar.config.evaluation import EvaluateConfig, ReportConfig
from solar.config.growth import UpscaleConfig
from solar.config.merging import MergeConfig
from solar.config.training import CONTROL_SUFFIX as SUFFIX
from solar.config.training import Control, NextTokenConfig, Trainable, TrainConfig
from solar.errors import PlanError
from solar.plan.facts import model_facts

UNKNOWN_LENGTH = 2048
"""Tokens a document is taken to have where no data stage says it: it hardly moves the ratio of two depths."""

Stages = Mapping[str, StageConfig]


def control(name: str, stage: StageConfig, stages: Stages) -> Stages:
    """A stage that asks for a control becomes two; it is what it was without, so its id stays.

    Where stages to score or to show are named one by one, their controls stand behind them.

    Raises:
        PlanError: a model that was not grown, or whose FLOPs cannot be known before it is there.
    """
    if isinstance(stage, EvaluateConfig | ReportConfig):
        return {name: _with_controls(stage, stages)}
    if not isinstance(stage, NextTokenConfig) or stage.control is None or stage.model not in stages:
        return {name: stage}
    chain = _chain(stage.model, stages)
    beside = copy.deepcopy(stage)
    # The base has no old and no new layers: all of it is trained.
    beside.control, beside.trainable, beside.unfreeze_at = None, Trainable.all, None
    beside.lr_factors = {role: rate for role, rate in stage.lr_factors.items() if role in ("embed", "norm")}
    beside.model = _ungrown(name, chain, stages)
    if not beside.model.endswith(SUFFIX):
        beside.branch = None
    if stage.control is Control.same_flops:
        beside.duration = _as_costly(name, stage, chain, stages)
    return {name: replace(stage, control=None), name + SUFFIX: beside}


def _chain(model: str, stages: Stages) -> list[str]:
    """A model and all that it was made from, the last one first."""
    chain: list[str] = []
    while model in stages and model not in chain:
        chain.append(model)
        stage = stages[model]
        model = stage.models[0] if isinstance(stage, MergeConfig) else getattr(stage, "model", "")
    return chain


def _ungrown(asking: str, chain: list[str], stages: Stages, controls: bool = True) -> str:
    """What stands at the place of the first model of a chain without the growth: an earlier control, or the base."""
    for name in chain:
        stage = stages[name]
        if isinstance(stage, UpscaleConfig):
            return stage.model
        if controls and isinstance(stage, NextTokenConfig) and stage.control is not None:
            return name + SUFFIX
        if not isinstance(stage, TrainConfig):
            break
    raise PlanError(
        f"stages.{asking}.control: '{chain[0]}' was not trained from an upscale stage, so it has no ungrown base; "
        "remove the control"
    )


def _as_costly(asking: str, stage: NextTokenConfig, chain: list[str], stages: Stages) -> str:
    """How long the base trains for the FLOPs of the grown model's training."""
    base = _ungrown(asking, chain, stages, controls=False)
    facts = model_facts({name: stages[name] for name in reversed(chain)})
    grown, ungrown = facts[stage.model].work, facts[base].work
    if grown is None or ungrown is None:
        unknown = stage.model if ungrown else base
        raise PlanError(
            f"stages.{asking}.control: the FLOPs of '{unknown}' are unknown before it is there; "
            "give its import stage `expects`, choose a plan without `diagnosis`, or take same_tokens"
        )
    data = stages.get(stage.data)
    length = data.sequence_length if isinstance(data, PrepareDataConfig) else UNKNOWN_LENGTH
    duration = Duration.parse(stage.duration)
    amount = duration.amount * grown.flops(length) / ungrown.flops(length)
    return f"{amount:.6f} epochs" if duration.unit is Unit.epochs else f"{round(amount)} {duration.unit.value}"


def _with_controls(stage: StageConfig, stages: Stages) -> StageConfig:
    for item in fields(stage):
        names = getattr(stage, item.name)
        if isinstance(names, list) and "reference" in item.metadata:
            pairs = [(name, name + SUFFIX) if _has_control(stages.get(name)) else (name,) for name in names]
            setattr(stage, item.name, list(dict.fromkeys(name for pair in pairs for name in pair)))
    return stage


def _has_control(stage: StageConfig | None) -> bool:
    return isinstance(stage, NextTokenConfig) and stage.control is not None
