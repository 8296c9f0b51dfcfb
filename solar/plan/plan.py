"""The plan: every stage in order, with its id, what it reads, and whether it must run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from solar.artifacts.manifest import NAME
from solar.artifacts.store import Artifact, Store
from solar.config.base import StageConfig
from solar.config.kinds import STAGES
from solar.config.root import SolarConfig
from solar.errors import ArtifactError, ConfigError, PlanError, hint
from solar.plan.checks.objective import check_objective
from solar.plan.digests import Digests
from solar.plan.facts import ModelFacts, model_facts
from solar.plan.graph import Edges, link, order, upstream
from solar.plan.identity import batches_that_count, identity
from solar.plan.need import needed


@dataclass(frozen=True)
class PlannedStage:
    """One stage: ready to run, already done, or needed by no stage that runs."""

    name: str
    config: StageConfig
    id: str
    inputs: Mapping[str, str]
    """Names of the stages it reads -> their ids."""
    artifact: Artifact | None
    facts: ModelFacts | None
    """Of the model it leaves, if it leaves one."""
    needed: bool = True
    """False where the artifact is missing, but every stage that reads it is done or not needed either."""
    same_as: str | None = None
    """An earlier stage of the same id: its artifact is this stage's, too."""

    @property
    def version(self) -> int:
        """Of the code of its kind."""
        return STAGES[self.config.kind].version

    @property
    def status(self) -> str:
        """What will become of it, in words."""
        if self.artifact is not None:
            return "done"
        if not self.needed:
            return "not needed"
        return "to run" if self.same_as is None else f"same as {self.same_as}"


@dataclass(frozen=True)
class Plan:
    """What an experiment comes to."""

    name: str
    stages: Mapping[str, PlannedStage]
    """In the order they run."""
    unread: tuple[str, ...]
    """Stages that no stage reads although their product is only of use to others."""

    @property
    def to_run(self) -> list[PlannedStage]:
        """Stages that will run; of several with one id, the first."""
        return [stage for stage in self.stages.values() if stage.status == "to run"]

    @property
    def headline(self) -> str:
        """The first line of what is printed."""
        status = [stage.status.partition(" ")[0] for stage in self.stages.values()]
        counts = [f"{status.count('done')} done", f"{status.count('to')} to run"]
        counts += [f"{status.count('same')} the same as another"] if "same" in status else []
        counts += [f"{status.count('not')} not needed"] if "not" in status else []
        return f"plan {self.name}: {len(self.stages)} stages, {', '.join(counts)}"


def make_plan(config: SolarConfig, store: Store) -> Plan:
    """Decide what can be decided before work starts. Reads the disk; writes only the memory of file hashes.

    `config` is expanded.

    Raises:
        PlanError, ConfigError, ArtifactError: stages that do not fit together, point at nothing, or are damaged.
    """
    if not config.stages:
        raise ConfigError(
            "stages: none given, expected at least one; choose an experiment, such as +experiment=quickstart"
        )
    stages = config.stages
    edges = link(stages)
    wanted = set(stages)
    if config.until is not None:
        if config.until not in stages:
            raise PlanError(
                f"until: names the stage '{config.until}', which is not in the plan{hint(config.until, stages)}"
            )
        wanted = upstream(edges, config.until)
    ordered = {name: stages[name] for name in order(edges) if name in wanted}
    check_objective(config.objective, config.until, ordered)
    facts = model_facts(ordered)
    planned = _identified(config, ordered, edges, facts, store)
    done = [name for name, stage in planned.items() if stage.artifact is not None]
    needed_ids = {planned[name].id for name in needed(ordered, edges, done, config.objective)}
    first_of: dict[str, str] = {}
    for name, stage in planned.items():
        first = first_of.setdefault(stage.id, name)
        planned[name] = replace(stage, needed=stage.id in needed_ids, same_as=None if first == name else first)
    unread = tuple(name for name in _unread(ordered, edges) if name != config.until)
    return Plan(config.name, planned, unread)


def _identified(
    config: SolarConfig, stages: Mapping[str, StageConfig], edges: Edges, facts: Mapping[str, ModelFacts], store: Store
) -> dict[str, PlannedStage]:
    """Every stage with its id and, if it is there, its artifact."""
    digests = Digests.load(Path(config.paths.root) / "digests.json")
    planned: dict[str, PlannedStage] = {}
    for name, stage in stages.items():
        inputs = {source: planned[source].id for source in edges[name]}
        batches = batches_that_count(name, stage, facts, config.trainer)
        try:
            own_id = identity(stage, inputs, digests, batches)
        except ConfigError as error:
            raise ConfigError(f"stages.{name}.{error}") from None
        artifact = store.find(name, own_id)
        if artifact is not None:
            _refuse_another_work(artifact, name, stage.kind, inputs)
        planned[name] = PlannedStage(name, stage, own_id, inputs, artifact, facts.get(name))
    digests.save()
    return planned


def _refuse_another_work(artifact: Artifact, name: str, kind: str, inputs: Mapping[str, str]) -> None:
    """An id is a hash of the kind and of the ids that are read, so a manifest of that id with others is false."""
    manifest = artifact.manifest
    if manifest.kind != kind or set(manifest.inputs.values()) != set(inputs.values()):
        raise ArtifactError(
            f"{name}: {artifact.path / NAME}: says kind {manifest.kind} and inputs "
            f"{sorted(set(manifest.inputs.values()))}, expected {kind} and {sorted(set(inputs.values()))}; "
            f"delete {artifact.path} to make it again"
        )


def _unread(stages: Mapping[str, StageConfig], edges: Edges) -> tuple[str, ...]:
    read = {source for name in stages for source in edges[name]}
    for_others = {"text", "tokenizer", "tokens"}
    return tuple(
        name for name, stage in stages.items() if STAGES[stage.kind].produces in for_others and name not in read
    )
