"""How and where a stage runs, beside its configuration and inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solar.config.root import LoggerConfig, TrainerConfig


@dataclass(frozen=True)
class RunContext:
    """Nothing in a context may change what is computed."""

    experiment: str
    stage: str
    trainer: TrainerConfig
    logger: LoggerConfig
    run_dir: Path
    """Folder of this run: trackers write there."""
    progress: Callable[[str], None]
    """Replaces the stage's one live line."""
    identity: str | None = None
    """The stage's id, which its checkpoints carry."""
