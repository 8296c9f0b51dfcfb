"""Devices, disk and GPU memory: what the plan will take, against what this machine has."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from solar.config.root import SolarConfig
from solar.config.training import NextTokenConfig, TrainConfig
from solar.plan.cost import cost
from solar.plan.plan import Plan
from solar.plan.show import quantity


def missing_resources(plan: Plan, config: SolarConfig) -> Iterator[str]:
    """A line for each resource that is too small, and for layers that the devices cannot divide."""
    yield from _heads(plan, config)
    yield from _float8(plan, config)
    yield from _disk(plan, config)
    yield from _gpus(plan, config)


def _heads(plan: Plan, config: SolarConfig) -> Iterator[str]:
    """Numbers of heads that tensor parallelism cannot divide, where the model's shape is known."""
    parts = config.trainer.tensor_parallel
    for stage in plan.to_run:
        shape = stage.facts.architecture if isinstance(stage.config, TrainConfig) and stage.facts else None
        for name in ("num_attention_heads", "num_key_value_heads") if shape else ():
            if getattr(shape, name) % parts:
                yield (
                    f"trainer.tensor_parallel: found {parts}, expected a divisor of the model's {name}, "
                    f"{getattr(shape, name)} (stages.{stage.name})"
                )


def _float8(plan: Plan, config: SolarConfig) -> Iterator[str]:
    """The first use of a GPU tells whether it multiplies float8 numbers; other devices never do."""
    for stage in plan.to_run:
        if isinstance(stage.config, NextTokenConfig) and stage.config.float8 and config.trainer.accelerator != "gpu":
            yield f"stages.{stage.name}.float8: found trainer.accelerator {config.trainer.accelerator}, expected gpu"


def _disk(plan: Plan, config: SolarConfig) -> Iterator[str]:
    needed = sum(cost(stage, plan.stages, config.trainer).disk_bytes or 0 for stage in plan.to_run)
    place = Path(config.paths.root).resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        have, want = quantity(free, "B"), quantity(needed, "B")
        yield (
            f"paths.root: {have} free in {config.paths.root}, the plan needs up to {want}; give another folder, "
            "or try it nevertheless with preflight=warn"
        )


def _gpus(plan: Plan, config: SolarConfig) -> Iterator[str]:
    if config.trainer.accelerator != "gpu" or not plan.to_run:
        return
    memories = gpu_memories()
    if len(memories) < config.trainer.devices:
        yield f"trainer.devices: found {len(memories)} GPUs on this machine, expected {config.trainer.devices}"
        return
    for stage in plan.to_run:
        needed = cost(stage, plan.stages, config.trainer).gpu_bytes
        if needed is not None and needed > min(memories):
            yield (
                f"stages.{stage.name}: weights, gradients and optimizer take {quantity(needed, 'B')} a GPU, which has "
                f"{quantity(min(memories), 'B')}; shard over more devices (trainer=fsdp), train in bf16_true, or try "
                "it nevertheless with preflight=warn"
            )


def gpu_memories() -> list[int]:
    """Bytes of each GPU's memory, from `nvidia-smi`; empty without it."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) * 2**20 for line in lines.split() if line.isdigit()]
