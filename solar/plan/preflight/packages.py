"""Optional packages that a stage or the logger needs and that are not installed."""

import importlib.util
from collections.abc import Iterator

from solar.config.data import Deduplicate, PrepareDataConfig
from solar.config.evaluation import EvaluateConfig
from solar.config.model import ImportModelConfig
from solar.config.optimizer import OPTIMIZER_PACKAGES
from solar.config.preference import ReferenceLogpsConfig
from solar.config.root import LoggerName, SolarConfig
from solar.config.synthesis import SynthesizeConfig
from solar.config.training import NextTokenConfig, TrainConfig
from solar.plan.identity import absent_packages
from solar.plan.plan import PlannedStage


def missing_packages(stages: list[PlannedStage], config: SolarConfig) -> Iterator[str]:
    """A line for each package, with the command that installs it."""
    for stage in stages:
        for name in absent_packages(stage.config):
            yield f"stages.{stage.name}: the package {name} is not installed; pip install --no-deps {name}"
        for key, package, install in _optional(stage):
            if importlib.util.find_spec(package) is None:
                yield f"stages.{stage.name}.{key}: needs {package}, which is not installed; pip install '{install}'"
    trains = any(isinstance(stage.config, TrainConfig) for stage in stages)
    if trains and config.logger.name is LoggerName.tensorboard and not _has_tensorboard():
        yield "logger.name: tensorboard is not installed; pip install tensorboard, or choose logger=none"


def _has_tensorboard() -> bool:
    return any(importlib.util.find_spec(package) for package in ("tensorboard", "tensorboardX"))


def _optional(stage: PlannedStage) -> Iterator[tuple[str, str, str]]:
    """(key, package to import, what to install) of what only some configurations need."""
    match stage.config:
        case EvaluateConfig() as config if config.harness:
            yield from (("harness", package, "solar[eval]") for package in ("lm_eval", "accelerate"))
        case ImportModelConfig() as config if (config.file or config.path or "").endswith(".gguf"):
            yield "file" if config.file else "path", "gguf", "solar[gguf]"
        case PrepareDataConfig() as config if config.deduplicate is Deduplicate.minhash:
            yield "deduplicate", "rensa", "solar[dedup]"
        case SynthesizeConfig() as config if config.base_url is not None:
            yield "base_url", "openai", "solar[synthesize]"
        case TrainConfig() as config:
            if config.optimizer.name in OPTIMIZER_PACKAGES:
                package, extra = OPTIMIZER_PACKAGES[config.optimizer.name]
                yield "optimizer.name", package, f"solar[{extra}]"
            if config.adapter.rank:
                yield "adapter.rank", "peft", "solar[lora]"
            if isinstance(config, NextTokenConfig) and config.float8:
                yield "float8", "torchao", "solar[float8]"
            if config.adapter.base is not None:
                yield "adapter.base", "bitsandbytes", "solar[qlora]"
        case ReferenceLogpsConfig() as config if config.base is not None:
            yield "base", "bitsandbytes", "solar[qlora]"
