"""The call of one stage as a JSON file, from which another process makes the call; reading JSON runs no code."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Artifact
from solar.config.base import StageConfig
from solar.config.kinds import STAGES
from solar.config.plain import as_plain
from solar.config.root import LoggerConfig, TrainerConfig
from solar.engine.context import Inputs, RunContext
from solar.redaction import as_references


@dataclass(frozen=True)
class Job:
    """The arguments of a stage function."""

    config: dict[str, Any]
    inputs: dict[str, str]
    output: str
    experiment: str
    stage: str
    trainer: dict[str, Any]
    logger: dict[str, Any]
    run_dir: str
    identity: str | None

    @classmethod
    def of(cls, config: StageConfig, inputs: Inputs, output: Path, context: RunContext) -> "Job":
        """Describe one call."""
        return cls(
            config=as_plain(config),
            inputs={name: str(artifact.path.resolve()) for name, artifact in inputs.items()},
            output=str(output.resolve()),
            experiment=context.experiment,
            stage=context.stage,
            trainer=as_plain(context.trainer),
            logger=as_plain(context.logger),
            run_dir=str(context.run_dir.resolve()),
            identity=context.identity,
        )

    def to_json(self) -> str:
        """The content of the file, in which secrets of the environment are references, which `arguments` resolves."""
        return json.dumps(as_references(self.__dict__))

    @classmethod
    def read(cls, path: Path) -> "Job":
        """The job in a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def trainer_config(self) -> TrainerConfig:
        """The trainer of the job."""
        config: TrainerConfig = _typed(TrainerConfig, self.trainer)
        return config

    def arguments(self, progress: Callable[[str], None]) -> tuple[StageConfig, Inputs, Path, RunContext]:
        """The arguments as they were, with artifacts read anew."""
        inputs = {name: Artifact(Path(path), Manifest.read(Path(path))) for name, path in self.inputs.items()}
        context = RunContext(
            experiment=self.experiment,
            stage=self.stage,
            trainer=self.trainer_config,
            logger=_typed(LoggerConfig, self.logger),
            run_dir=Path(self.run_dir),
            progress=progress,
            identity=self.identity,
        )
        return _typed(STAGES[self.config["kind"]].config, self.config), inputs, Path(self.output), context


def _typed(schema: type[Any], plain: dict[str, Any]) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))
