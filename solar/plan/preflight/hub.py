"""Weights and data from the hub that are not in the local cache while the hub cannot be reached."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from solar.config.base import StageConfig
from solar.config.data import PrepareDataConfig, SourceConfig
from solar.config.model import ImportModelConfig
from solar.config.synthesis import SynthesizeConfig
from solar.plan.plan import PlannedStage


def missing_from_hub(stages: list[PlannedStage]) -> Iterator[str]:
    """A line for each repository that cannot be read now."""
    absent = list(_not_cached(stages))
    if absent and not _reachable():
        yield from (f"{key}: {what} is not in the local cache, and the hub cannot be reached" for key, what in absent)


def _not_cached(stages: list[PlannedStage]) -> Iterator[tuple[str, str]]:
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
