"""Replaces stages that stand for others by the stages that run. All later code sees only stages that run."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

from solar.config.base import StageConfig
from solar.config.kinds import STAGES, fits
from solar.config.links import ALL, redirect
from solar.config.root import SolarConfig
from solar.errors import PlanError
from solar.plan.expansion.controls import control
from solar.plan.expansion.stepwise import reference_logps, stepwise

Stages = Mapping[str, StageConfig]
Expansion = Callable[[str, StageConfig, Stages], Stages]
"""Name of a stage, a copy of it, and all stages -> the stages that replace it, in order; often only itself.

A reference to a removed stage resolves to its last replacement. Two stages may bring the same third stage.
"""


def expand(config: SolarConfig) -> SolarConfig:
    """The configuration with every stage as it runs. Names of replaced stages still work in references and `until`.

    Raises:
        PlanError: a stage that would be there twice, or a `*` that matches nothing.
    """
    for expansion in EXPANSIONS:
        config = _expanded(config, expansion)
    return config


def _expanded(config: SolarConfig, expansion: Expansion) -> SolarConfig:
    stages: dict[str, StageConfig] = {}
    became: dict[str, list[str]] = {}
    for name, stage in config.stages.items():
        made = expansion(name, copy.deepcopy(stage), config.stages)
        for new in made.keys() - {name}:
            if new in config.stages or stages.get(new, made[new]) != made[new]:
                raise PlanError(f"stages.{name}: makes a stage '{new}', but there is another of that name; rename it")
        stages |= made
        became[name] = list(made)
    last = {name: names[-1] for name, names in became.items() if name not in names}
    for stage in stages.values():
        redirect(stage, last)
    sizes = config.trainer.micro_batch_sizes.items()
    each = {part: size for name, size in sizes for part in became.get(name, [name])}
    objective = None if config.objective is None else config.objective.split(".")
    return replace(
        config,
        stages=stages,
        until=None if config.until is None else last.get(config.until, config.until),
        objective=None if objective is None else ".".join(last.get(word, word) for word in objective),
        trainer=replace(config.trainer, micro_batch_sizes=each),
    )


def every(name: str, stage: StageConfig, stages: Stages) -> Stages:
    """Replace `["*"]` in a list of references by every other stage that leaves the product."""
    for item in fields(stage):
        if getattr(stage, item.name) == [ALL] and "reference" in item.metadata:
            names = _matching(name, item.metadata["reference"], stages)
            if not names:
                raise PlanError(f"stages.{name}.{item.name}: '*' matches no other stage of the plan; name them")
            setattr(stage, item.name, names)
    return {name: stage}


def _matching(reader: str, product: str, stages: Stages) -> list[str]:
    own = STAGES[stages[reader].kind].produces
    candidates = {name: STAGES[stage.kind].produces for name, stage in stages.items()}
    return [name for name, made in candidates.items() if name != reader and made != own and fits(made, product)]


EXPANSIONS: tuple[Expansion, ...] = (control, stepwise, reference_logps, every)
"""In this order: `every` comes last, so that it sees all stages."""
