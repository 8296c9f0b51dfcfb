"""Walk the plan: run the missing stages, publish their artifacts."""

import os
import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from solar.artifacts.manifest import Manifest, provenance
from solar.artifacts.store import Artifact, Store
from solar.artifacts.tidy import remove_dead_attempts
from solar.config.kinds import STAGES
from solar.config.plain import as_plain
from solar.config.root import SolarConfig
from solar.config.training import TrainConfig
from solar.engine.context import Metrics, RunContext
from solar.engine.disk import disk_problem
from solar.engine.launch import launch
from solar.engine.progress import Line, Progress
from solar.engine.stop import Stop
from solar.errors import ArtifactInUse, DataError, StageError
from solar.plan.cost import cost
from solar.plan.plan import Plan, PlannedStage
from solar.redaction import redact
from solar.weights.travelling import template_sha256

POLL_SECONDS = 1.0
"""Between two looks at a stage that another run is building."""


@dataclass(frozen=True)
class Executor:
    """Runs one plan."""

    config: SolarConfig
    store: Store
    run_dir: Path
    progress: Progress

    def run(self, plan: Plan) -> Mapping[str, Artifact]:
        """The artifact of every stage that is done or needed, by stage name; finished stages are not run again."""
        artifacts: dict[str, Artifact] = {}
        os.environ.update(self.config.trainer.environment)
        stop = Stop()
        with stop.listening():
            remove_dead_attempts(self.store)
            for name, stage in plan.stages.items():
                if stage.artifact is not None:
                    artifacts[name] = stage.artifact
                elif stage.needed:
                    artifacts[name] = self._run_stage(stage, artifacts, stop, plan)
        return artifacts

    def _run_stage(self, stage: PlannedStage, artifacts: Mapping[str, Artifact], stop: Stop, plan: Plan) -> Artifact:
        inputs = {name: artifacts[name] for name in stage.inputs}
        started = time.monotonic()
        with self.progress.stage(stage.name) as line:
            output = self._claimed(stage, line)
            if isinstance(output, Artifact):
                self.store.verify(output, stage.name)
                line.ended = f"same as {stage.same_as}" if stage.same_as else "found: another run made it"
                return output
            # Training takes the signal itself and saves; a signal that comes too late for that waits for the artifact.
            with stop.held() if self._takes_signals(stage) else nullcontext():
                try:
                    for name, artifact in inputs.items():  # what was whole at the start may have been changed since
                        self.store.verify(artifact, name)
                    metrics = _launched(stage, inputs, output, self._context(stage, line))
                    metrics = self._beside_estimate(metrics, stage, plan)
                    seconds = round(time.monotonic() - started, 3)
                    with stop.held():
                        artifact = self.store.publish(_manifest(stage, metrics | _template(output), seconds))
                        line.finish(metrics)
                except BaseException as error:
                    self.store.abandon(stage.name, stage.id)
                    if (problem := disk_problem(error, output)) is not None:
                        raise StageError(f"{stage.name}: {problem}") from error
                    raise
        return artifact

    def _beside_estimate(self, metrics: Metrics, stage: PlannedStage, plan: Plan) -> Metrics:
        """A measured peak of memory gets the plan's estimate at its side; activations are in the peak alone."""
        estimate = cost(stage, plan.stages, self.config.trainer).gpu_bytes if "peak_memory_bytes" in metrics else None
        return metrics if estimate is None else {**metrics, "estimated_memory_bytes": estimate}

    def _claimed(self, stage: PlannedStage, line: Line) -> Path | Artifact:
        """The folder to build in; or the artifact, if another run finished it since the plan was made.

        Waits while another run builds it, and takes over when that run ends without an artifact.
        """
        while (finished := self.store.find(stage.name, stage.id)) is None:
            try:
                output = self.store.begin(stage.name, stage.id)
            except ArtifactInUse as in_use:
                line.announce(f"waiting: {in_use}")
                time.sleep(POLL_SECONDS)
                continue
            finished = self.store.find(stage.name, stage.id)  # published between the look and the claim?
            if finished is None:
                return output
            self.store.abandon(stage.name, stage.id)
        return finished

    def _takes_signals(self, stage: PlannedStage) -> bool:
        on_ranks = STAGES[stage.config.kind].trains and self.config.trainer.devices * self.config.trainer.num_nodes > 1
        return on_ranks or isinstance(stage.config, TrainConfig)

    def _context(self, stage: PlannedStage, line: Line) -> RunContext:
        return RunContext(
            experiment=self.config.name,
            stage=stage.name,
            trainer=self.config.trainer,
            logger=self.config.logger,
            run_dir=self.run_dir,
            progress=line.update,
            identity=stage.id,
        )


def _launched(stage: PlannedStage, inputs: Mapping[str, Artifact], output: Path, context: RunContext) -> Metrics:
    """The stage's metrics. An error about the stage's keys or data gets the stage's name."""
    try:
        return launch(stage.config, inputs, output, context)
    except (DataError, StageError) as error:
        if re.search(rf"\b{re.escape(stage.name)}\b", str(error)):
            raise
        raise type(error)(*(f"{stage.name}: {line}" for line in error.lines)) from error


def _template(output: Path) -> Metrics:
    """The hash of the chat template that the stage leaves, with a model, a tokenizer or tokens."""
    folders = [output / name for name in ("model", "tokenizer") if (output / name).is_dir()]
    hashes = [template_sha256(folder) for folder in folders]
    return {"chat_template_sha256": hashes[0]} if hashes and hashes[0] else {}


def _manifest(stage: PlannedStage, metrics: Metrics, wall_seconds: float) -> Manifest:
    return Manifest(
        stage=stage.name,
        kind=stage.config.kind,
        id=stage.id,
        version=stage.version,
        config=redact(as_plain(stage.config)),
        inputs=dict(stage.inputs),
        metrics=redact(metrics),
        files={},
        provenance=provenance(),
        wall_seconds=wall_seconds,
    )
