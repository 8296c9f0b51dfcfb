"""All problems of a configuration at once, before anything is planned."""

import math
import re
from collections.abc import Iterator
from typing import Any

from solar.config.growth import DiagnoseConfig, UpscaleConfig
from solar.config.growth_plan import SeamInit
from solar.config.kinds import STAGES
from solar.config.links import pointers
from solar.config.plain import as_plain
from solar.config.root import SolarConfig, Strategy
from solar.config.training import TrainConfig
from solar.errors import ConfigError, hint
from solar.plan.checks.branches import branch_problems
from solar.plan.checks.preference_data import source_problems
from solar.plan.checks.values import value_problems

READS_WEIGHT_FILES = ("upscale", "merge", "soup", "synthesize")
"""Kinds that read weight files. Other kinds load the model, and can build a model that is kept as a plan."""


def check(config: SolarConfig) -> None:
    """Raises `ConfigError` with one line for each problem."""
    infinite = [f"{key}: found {value}, expected a finite number" for key, value in _infinite(as_plain(config))]
    problems = infinite or list(_invalid(config))
    if problems:
        raise ConfigError(*problems)


def _invalid(config: SolarConfig) -> Iterator[str]:
    for name, stage in config.stages.items():
        kind = STAGES.get(stage.kind)
        if kind is None:
            yield f"stages.{name}.kind: found '{stage.kind}'{hint(stage.kind, STAGES)}"
        elif type(stage) is not kind.config:
            yield (
                f"stages.{name}: kind {stage.kind} is written without its schema; "
                f"start it from `/stage@stages.{name}: {stage.kind}` or `/schema/{stage.kind}@stages.{name}`"
            )
        else:
            yield from (f"stages.{name}.{problem}" for problem in stage.problems())
            yield from (f"stages.{name}.{problem}" for problem in branch_problems(stage, config.stages))
            yield from _batches(name, stage, config)
            yield from _sharded(name, stage, config)
            yield from _without_weights(name, stage, config)
            yield from _selected(name, stage, config)
            yield from (f"stages.{name}.{problem}" for problem in value_problems(stage))
            yield from (f"stages.{name}.{problem}" for problem in source_problems(stage, config.stages))
    if not re.fullmatch(r"[\w][\w.-]{0,99}", config.name):
        yield f"name: found '{config.name}', expected up to 100 letters, digits, '.', '_' and '-': it names a folder"
    if not config.paths.root:
        yield "paths.root: found nothing, expected a folder"
    for part in ("trainer", "logger"):
        yield from (f"{part}.{problem}" for problem in getattr(config, part).problems())
    for name in config.trainer.micro_batch_sizes:
        if name not in config.stages:
            yield f"trainer.micro_batch_sizes.{name}: no such stage{hint(name, config.stages)}"
    if config.objective is not None and config.objective.split(".")[0] not in config.stages:
        yield f"objective: found '{config.objective}', expected stage.metric{hint(config.objective, config.stages)}"


def _without_weights(name: str, stage: Any, config: SolarConfig) -> Iterator[str]:
    sharded = isinstance(stage, TrainConfig) and config.trainer.strategy is Strategy.fsdp
    reader = "trainer.strategy fsdp" if sharded else stage.kind
    for pointer in pointers(stage, "reference") if sharded or stage.kind in READS_WEIGHT_FILES else ():
        source = config.stages.get(pointer.value)
        if pointer.to == "model" and isinstance(source, UpscaleConfig) and not source.materialize:
            yield (
                f"stages.{name}.{pointer.key}: '{pointer.value}' keeps no weights, but {reader} reads their files; "
                f"set stages.{pointer.value}.materialize to true"
            )


def _selected(name: str, stage: Any, config: SolarConfig) -> Iterator[str]:
    """Problems between a growth and the diagnosis that selects its plan."""
    by = stage.diagnosis if isinstance(stage, UpscaleConfig) else None
    diagnosis = config.stages.get(by or "")
    if not isinstance(diagnosis, DiagnoseConfig):
        return
    if not diagnosis.plans:
        yield f"stages.{name}.diagnosis: '{by}' has no plans to select from; set stages.{by}.plans"
    matched = [name for name, plan in diagnosis.plans.items() if plan.seam is SeamInit.rms_match]
    if matched and stage.data is None:
        yield f"stages.{name}.data: not set, but {', '.join(matched)} of '{by}' measures on it; name tokens"


def _infinite(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield key, value
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from _infinite(inner, f"{key}.{name}" if key else name)


def _batches(name: str, stage: Any, config: SolarConfig) -> Iterator[str]:
    trainer, batch = config.trainer, getattr(stage, "global_batch_size", None)
    if batch is None or min(trainer.devices, trainer.num_nodes, trainer.tensor_parallel, trainer.replicas) < 1:
        return
    replicas = trainer.replicas
    devices = f"{replicas} devices" if trainer.tensor_parallel == 1 else f"{replicas} groups of devices"
    if batch % replicas:
        yield f"stages.{name}.global_batch_size: found {batch}, expected a multiple of the {devices}"
        return
    micro = trainer.micro_batch_of(name, batch)
    if micro >= 1 and (batch // replicas) % micro:
        yield (
            f"stages.{name}.global_batch_size: {batch} over {devices} is no multiple of micro-batches "
            f"of {micro}; set trainer.micro_batch_sizes.{name} to a divisor of {batch // replicas}"
        )


def _sharded(name: str, stage: Any, config: SolarConfig) -> Iterator[str]:
    """Settings that sharded weights do not allow."""
    if not isinstance(stage, TrainConfig) or config.trainer.strategy is not Strategy.fsdp:
        return
    settings = {
        "adapter.rank": (stage.adapter.rank, 0),
        "optimizer.name": (stage.optimizer.name.value, "adamw"),
        "unfreeze_at": (stage.unfreeze_at, None),
        "average.kind": (stage.average.kind.value, "none"),
    }
    for key, (value, allowed) in settings.items():
        if value != allowed:
            expected = "null" if allowed is None else allowed
            yield f"stages.{name}.{key}: found {value} with trainer.strategy fsdp, expected {expected}, or trainer=ddp"
