"""What this machine lacks for what a plan is about to run: one line each, before any work."""

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from solar.config.base import StageConfig
from solar.config.data import PrepareDataConfig, SourceConfig
from solar.config.evaluation import EvaluateConfig
from solar.config.model import ImportModelConfig
from solar.config.optimizer import OPTIMIZER_PACKAGES
from solar.config.root import SolarConfig, Strategy
from solar.config.synthesis import SynthesizeConfig
from solar.config.training import TrainConfig
from solar.plan.cost import cost
from solar.plan.identity import absent_packages
from solar.plan.plan import Plan, PlannedStage
from solar.plan.show import quantity


def lacks(plan: Plan, config: SolarConfig) -> Iterator[str]:
    """Everything that would stop the run later: weights, data, packages, disk, GPUs."""
    hub = list(_hub(plan.to_run))
    if hub and not _reachable():
        yield from (f"{key}: {what} is not in the local cache, and the hub cannot be reached" for key, what in hub)
    for stage in plan.to_run:
        yield from _packages(stage)
    yield from _heads(plan, config)
    yield from _disk(plan, config)
    yield from _gpus(plan, config)


def _hub(stages: list[PlannedStage]) -> Iterator[tuple[str, str]]:
    for stage in stages:
        model = stage.config if isinstance(stage.config, ImportModelConfig) else None
        wanted = [("models", "hub", model.hub, model.revision)] if model is not None else []
        for name, source in _sources(stage.config):
            index, _, commit = (source.task_index or "").partition("@")
            wanted += [("datasets", f"{name}.hub", source.hub, source.revision)]
            wanted += [("datasets", f"{name}.task_index", index or None, commit)]
        for kind, key, repository, revision in wanted:
            if repository is not None and not _cached(kind, repository, str(revision)):
                yield f"stages.{stage.name}.{key}", f"{repository} at {str(revision)[:12]}"


def _sources(config: StageConfig) -> Iterator[tuple[str, SourceConfig]]:
    """Every source a stage reads, with its key below the stage."""
    if isinstance(config, PrepareDataConfig):
        yield from ((f"sources.{name}", source) for name, source in config.sources.items())
        if config.decontaminate is not None:
            yield from (
                (f"decontaminate.against.{name}", source) for name, source in config.decontaminate.against.items()
            )
    elif isinstance(config, SynthesizeConfig):
        yield "seeds", config.seeds


def _cached(kind: str, repository: str, revision: str) -> bool:
    home = Path(os.environ.get("HF_HOME", Path("~/.cache/huggingface").expanduser()))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (cache / f"{kind}--{repository.replace('/', '--')}" / "snapshots" / revision).is_dir()


def _reachable() -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    endpoint = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


def _packages(stage: PlannedStage) -> Iterator[str]:
    for name in absent_packages(stage.config):
        yield f"stages.{stage.name}: the package {name} is not installed; pip install --no-deps {name}"
    if isinstance(stage.config, EvaluateConfig) and stage.config.harness:
        for package in ("lm_eval", "accelerate"):
            if not importlib.util.find_spec(package):
                yield f"stages.{stage.name}.harness: {package} is not installed; pip install 'solar[eval]'"
    if isinstance(stage.config, ImportModelConfig) and not importlib.util.find_spec("gguf"):
        weights = stage.config.file or stage.config.path or ""
        if weights.endswith(".gguf"):
            yield f"stages.{stage.name}: reading GGUF needs a package that is not installed; pip install 'solar[gguf]'"
    if isinstance(stage.config, TrainConfig):
        name = stage.config.optimizer.name
        package, extra = OPTIMIZER_PACKAGES.get(name, ("torch", ""))
        if not importlib.util.find_spec(package):
            key = f"stages.{stage.name}.optimizer.name"
            yield f"{key}: {name} needs {package}, which is not installed; pip install 'solar[{extra}]'"
        if stage.config.adapter.rank and not importlib.util.find_spec("peft"):
            yield f"stages.{stage.name}.adapter.rank: needs peft, which is not installed; pip install 'solar[lora]'"


def _heads(plan: Plan, config: SolarConfig) -> Iterator[str]:
    """What devices that share layers cannot cut into equal parts, where the model's shape is known by now."""
    parts = config.trainer.tensor_parallel
    for stage in plan.to_run:
        shape = stage.facts.architecture if isinstance(stage.config, TrainConfig) and stage.facts else None
        for name in ("num_attention_heads", "num_key_value_heads") if shape else ():
            if getattr(shape, name) % parts:
                yield (
                    f"trainer.tensor_parallel: found {parts}, expected a divisor of the model's {name}, "
                    f"{getattr(shape, name)} (stages.{stage.name})"
                )


def _disk(plan: Plan, config: SolarConfig) -> Iterator[str]:
    devices, sharded = _devices(config)
    needed = 0
    for stage in plan.to_run:
        needed += cost(stage, plan.stages, devices, sharded).disk_bytes or 0
    place = Path(config.paths.root).resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        have, want = quantity(free, "B"), quantity(needed, "B")
        yield f"paths.root: {have} free in {config.paths.root}, the plan needs up to {want}; give another folder"


def _gpus(plan: Plan, config: SolarConfig) -> Iterator[str]:
    if config.trainer.accelerator != "gpu" or not plan.to_run:
        return
    memories = _gpu_memories()
    if len(memories) < config.trainer.devices:
        yield f"trainer.devices: found {len(memories)} GPUs on this machine, expected {config.trainer.devices}"
        return
    devices, sharded = _devices(config)
    for stage in plan.to_run:
        needed = cost(stage, plan.stages, devices, sharded).gpu_bytes
        if needed is not None and needed > min(memories):
            yield (
                f"stages.{stage.name}: weights, gradients and optimizer take {quantity(needed, 'B')} a GPU, which has "
                f"{quantity(min(memories), 'B')}; shard over more devices (trainer=fsdp) or train in bf16_true"
            )


def _gpu_memories() -> list[int]:
    """Bytes of each GPU's memory, as the driver's own tool says."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) * 2**20 for line in told.split() if line.isdigit()]


def _devices(config: SolarConfig) -> tuple[int, bool]:
    return config.trainer.devices * config.trainer.num_nodes, config.trainer.strategy is Strategy.fsdp
