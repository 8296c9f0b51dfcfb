"""Stepwise DPO becomes a chain of DPO stages; stages with the same reference share its log-probabilities."""

from collections.abc import Mapping
from dataclasses import fields, replace

from solar.config.base import StageConfig
from solar.config.preference import (
    BY_MARGIN,
    REFERENCE_FREE,
    ChunkBy,
    ChunkPairsConfig,
    DpoConfig,
    PreferenceConfig,
    ReferenceLogpsConfig,
    StepConfig,
    StepwiseDpoConfig,
)

Stages = Mapping[str, StageConfig]


def stepwise(name: str, stage: StageConfig, stages: Stages) -> Stages:
    """Step t starts from the model of step t - 1, which is also its reference. One step is plain DPO."""
    if not isinstance(stage, StepwiseDpoConfig):
        return {name: stage}
    made: dict[str, StageConfig] = {}
    chunks = None
    if stage.chunk_by in (*BY_MARGIN, ChunkBy.accuracy) and len(stage.all_steps) > 1:
        chunks = f"{name}_chunks"
        made[chunks] = ChunkPairsConfig(
            kind="chunk_pairs",
            reference=stage.model,
            data=stage.data,
            precision=stage.precision,
            by=stage.chunk_by,
            shares=stage.shares,
        )
    before = stage.model
    for number, step in enumerate(stage.all_steps, 1):
        made[f"{name}_{number}"] = _one_step(stage, number, step, before, chunks)
        before = f"{name}_{number}"
    return made


def _one_step(stage: StepwiseDpoConfig, number: int, step: StepConfig, before: str, chunks: str | None) -> DpoConfig:
    same = {item.name: getattr(stage, item.name) for item in fields(PreferenceConfig)}
    same |= {"kind": "dpo", "model": before, "reference": before, "sources": step.sources}
    same |= {key: value for key in ("beta", "duration") if (value := getattr(step, key)) is not None}
    if step.lr is not None:
        same["optimizer"] = replace(stage.optimizer, lr=step.lr)
    if chunks is not None:
        same |= {"chunks": chunks, "chunk": number}
    elif stage.chunk_by is ChunkBy.size and len(stage.all_steps) > 1:
        same["part"] = f"{sum(stage.shares[: number - 1]):.6g}:{min(1.0, sum(stage.shares[:number])):.6g}"
    return DpoConfig(**same)


def reference_logps(name: str, stage: StageConfig, stages: Stages) -> Stages:
    """Add the stage that computes the reference's log-probabilities, before a stage that reads them."""
    own = _wanted(stage, stages)
    if own is None:
        return {name: stage}
    all_wanted = [wanted for other in stages.values() if (wanted := _wanted(other, stages)) is not None]
    alike = [other for other in all_wanted if other.model == own.model]
    number = list(map(str, dict.fromkeys(map(repr, alike)))).index(repr(own))
    source = f"{own.model}_logps" + (f"_{number + 1}" if number else "")
    stage.logps = source  # type: ignore[attr-defined]
    return {source: own, name: stage}


def _wanted(stage: StageConfig, stages: Stages) -> ReferenceLogpsConfig | None:
    if not isinstance(stage, DpoConfig | ChunkPairsConfig) or stage.logps is not None:
        return None
    if isinstance(stage, DpoConfig) and stage.loss in REFERENCE_FREE:
        return None
    if stage.reference not in stages or stage.data not in stages:
        return None
    base = stage.adapter.base if isinstance(stage, DpoConfig) else None
    return ReferenceLogpsConfig(
        kind="reference_logps", model=stage.reference, data=stage.data, precision=stage.precision, base=base
    )
