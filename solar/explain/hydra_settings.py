"""What a configuration may say of Hydra itself: nothing that makes Hydra call what the configuration names."""

import re
from collections.abc import Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from solar.errors import ConfigError

_CALLED = [
    "callbacks",
    "job.env_set",  # variables such as LD_PRELOAD and PYTHONPATH
    *(f"{log}.{part}" for log in ("job_logging", "hydra_logging") for part in ("handlers", "formatters", "filters")),
]
"""Settings of Hydra that name functions, classes or files to load."""
_PLUGIN = re.compile(r"(hydra\._internal\.core_plugins|hydra_plugins)(\.\w+)+")
"""Hydra itself takes no other class than one of an installed plugin."""
_SAMPLER = re.compile(r"optuna\.samplers\.\w+")


_load = ConfigLoaderImpl.load_configuration


def refuse_functions() -> None:
    """From now on no composition of Hydra names a function to call; `ConfigError` is raised before Hydra acts on one.

    Hydra calls callbacks and sets up logs as soon as it has composed, before it hands over the configuration.
    """
    ConfigLoaderImpl.load_configuration = _load_without_functions  # type: ignore[method-assign]


def _load_without_functions(*arguments: Any, **keywords: Any) -> DictConfig:
    composed: DictConfig = _load(*arguments, **keywords)
    for line in functions_named(composed):
        raise ConfigError(line)
    return composed


def functions_named(composed: DictConfig) -> Iterator[str]:
    """A line for each setting of Hydra that would run code."""
    for key in _CALLED:
        if OmegaConf.select(composed, f"hydra.{key}"):
            yield f"hydra.{key}: found settings, expected none: they can name code to run; leave them out"
    for plugin in ("launcher", "sweeper"):
        settings = OmegaConf.to_container(composed.hydra[plugin], resolve=False)
        for key, target in _targets(settings, f"hydra.{plugin}"):
            allowed = _PLUGIN if key == f"hydra.{plugin}._target_" else _SAMPLER
            if not allowed.fullmatch(str(target)):
                yield f"{key}: found {str(target)!r}, expected no function to call; leave it out"


def _targets(settings: Any, place: str) -> Iterator[tuple[str, Any]]:
    items = (
        settings.items() if isinstance(settings, dict) else enumerate(settings) if isinstance(settings, list) else ()
    )
    for key, value in items:
        if key == "_target_":
            yield f"{place}.{key}", value
        yield from _targets(value, f"{place}.{key}")
