"""Controls answer "was it the depth, or the further training?": the ungrown base, trained as the grown model is."""

import copy
from collections.abc import Mapping
from dataclasses import fields, replace

from solar.config.base import StageConfig
from solar.config.data import PrepareDataConfig
from solar.config.duration import Duration, Unit
from solar.config.evaluation import EvaluateConfig, ReportConfig
from solar.config.growth import UpscaleConfig
from solar.config.links import ALL, pointers
from solar.config.merging import MergeConfig
from solar.config.soup import SoupConfig
from solar.config.training import CONTROL_SUFFIX as SUFFIX
from solar.config.training import Control, NextTokenConfig, Trainable, TrainConfig
from solar.errors import PlanError
from solar.plan.facts import model_facts
from solar.plan.graph import order

UNKNOWN_LENGTH = 2048
"""Assumed tokens of a document where no data stage says it; the ratio of two depths hardly depends on it."""

Stages = Mapping[str, StageConfig]


def control(name: str, stage: StageConfig, stages: Stages) -> Stages:
    """A stage that asks for a control becomes two stages. The original stage keeps its id; a control is added.

    In a list of stages to score or to show, the control follows its stage.

    Raises:
        PlanError: a model that was not grown, or whose FLOPs cannot be known before it is made.
    """
    if isinstance(stage, EvaluateConfig | ReportConfig):
        return {name: _with_controls(stage, stages)}
    if not isinstance(stage, NextTokenConfig) or stage.control is None or stage.model not in stages:
        return {name: stage}
    chain = _chain(stage.model, stages)
    base = copy.deepcopy(stage)
    # The base has no old and no new layers: all of it is trained.
    base.control, base.trainable, base.unfreeze_at = None, Trainable.all, None
    base.lr_factors = {role: rate for role, rate in stage.lr_factors.items() if role in ("embed", "norm")}
    base.model = _ungrown(name, chain, stages)
    if not base.model.endswith(SUFFIX):
        base.branch = None
    if stage.control is Control.same_flops:
        base.duration = _as_costly(name, stage, chain, stages)
    return {name: replace(stage, control=None), name + SUFFIX: base}


def _chain(model: str, stages: Stages) -> list[str]:
    """A model and the models it was made from, newest first; of merged models, the first."""
    chain: list[str] = []
    while model in stages and model not in chain:
        chain.append(model)
        stage = stages[model]
        model = stage.models[0] if isinstance(stage, MergeConfig | SoupConfig) else getattr(stage, "model", "")
    return chain


def _with_ancestors(model: str, stages: Stages) -> Stages:
    """A model and every stage that it is made from, each after what it reads."""
    edges: dict[str, tuple[str, ...]] = {}
    todo = [model]
    while todo:
        name = todo.pop()
        if name not in edges:
            edges[name] = tuple(p.value for p in pointers(stages[name], "reference") if p.value in stages)
            todo.extend(edges[name])
    return {name: stages[name] for name in order(edges)}


def _ungrown(asking: str, chain: list[str], stages: Stages, controls: bool = True) -> str:
    """What a control starts from instead of the first model of a chain: an earlier control, or the ungrown base."""
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
    """Duration of training the base that costs the FLOPs of training the grown model."""
    base = _ungrown(asking, chain, stages, controls=False)
    made_from = _with_ancestors(stage.model, stages)
    if (
        starred := next((name for name in made_from if getattr(stages[name], "models", None) == [ALL]), None)
    ) is not None:
        raise PlanError(f"stages.{asking}.control: the models of '{starred}' are '*'; name them, or take same_tokens")
    facts = model_facts(made_from)
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
