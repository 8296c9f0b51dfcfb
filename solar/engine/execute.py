"""Walk the plan: run what is missing, publish what is done."""

import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from solar.artifacts.manifest import Manifest, provenance
from solar.artifacts.store import Artifact, Store
from solar.config.kinds import STAGES
from solar.config.plain import as_plain
from solar.config.root import SolarConfig
from solar.engine.context import Metrics, RunContext
from solar.engine.launch import launch
from solar.engine.progress import Progress
from solar.engine.stop import Stop
from solar.errors import DataError, StageError
from solar.plan.plan import Plan, PlannedStage


@dataclass(frozen=True)
class Executor:
    """Runs one plan."""

    config: SolarConfig
    store: Store
    run_dir: Path
    progress: Progress

    def run(self, plan: Plan) -> Mapping[str, Artifact]:
        """Every stage's artifact, by stage name; what is already there is not run again."""
        artifacts: dict[str, Artifact] = {}
        stop = Stop()
        with stop.listening():
            for name, stage in plan.stages.items():
                # Training hears signals itself, and saves; one that comes too late for that waits for the artifact.
                with stop.held() if STAGES[stage.config.kind].trains else nullcontext():
                    artifacts[name] = stage.artifact or self._run_stage(stage, artifacts, stop)
        return artifacts

    def _run_stage(self, stage: PlannedStage, artifacts: Mapping[str, Artifact], stop: Stop) -> Artifact:
        # Another run may have finished it since the plan was made.
        finished = self.store.find(stage.name, stage.id)
        if finished is not None:
            return finished
        inputs = {name: artifacts[name] for name in stage.inputs}
        output = self.store.begin(stage.name, stage.id)
        started = time.monotonic()
        with self.progress.stage(stage.name) as line:
            context = RunContext(
                experiment=self.config.name,
                stage=stage.name,
                trainer=self.config.trainer,
                logger=self.config.logger,
                run_dir=self.run_dir,
                progress=line.update,
            )
            try:
                metrics = _launched(stage, inputs, output, context)
                seconds = round(time.monotonic() - started, 3)
                with stop.held():
                    artifact = self.store.publish(_manifest(stage, metrics, seconds))
                    line.finish(metrics)
            except BaseException:
                self.store.abandon(stage.name, stage.id)
                raise
        return artifact


def _launched(stage: PlannedStage, inputs: Mapping[str, Artifact], output: Path, context: RunContext) -> Metrics:
    """The stage's metrics. What it says of its own keys or data is told with its name."""
    try:
        return launch(stage.config, inputs, output, context)
    except (DataError, StageError) as error:
        if re.search(rf"\b{re.escape(stage.name)}\b", str(error)):
            raise
        raise type(error)(f"{stage.name}: {error}") from error


def _manifest(stage: PlannedStage, metrics: Metrics, wall_seconds: float) -> Manifest:
    return Manifest(
        stage=stage.name,
        kind=stage.config.kind,
        id=stage.id,
        version=stage.version,
        config=as_plain(stage.config),
        inputs=dict(stage.inputs),
        metrics=metrics,
        files={},
        provenance=provenance(),
        wall_seconds=wall_seconds,
    )
