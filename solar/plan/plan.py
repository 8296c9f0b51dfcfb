"""The plan: every stage in order, with its id, what it reads, and whether it is already there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from solar.artifacts.store import Artifact, Store
from solar.config.base import StageConfig
from solar.config.kinds import STAGES
from solar.config.root import SolarConfig
from solar.errors import ConfigError, PlanError, hint
from solar.plan.digests import Digests
from solar.plan.facts import ModelFacts, model_facts
from solar.plan.graph import link, order, upstream
from solar.plan.identity import identity
from solar.plan.objective import check_objective


@dataclass(frozen=True)
class PlannedStage:
    """One stage, ready to run or already done."""

    name: str
    config: StageConfig
    id: str
    inputs: Mapping[str, str]
    """Names of the stages it reads -> their ids."""
    artifact: Artifact | None
    facts: ModelFacts | None
    """Of the model it leaves, if it leaves one."""

    @property
    def version(self) -> int:
        """Of the code of its kind."""
        return STAGES[self.config.kind].version


@dataclass(frozen=True)
class Plan:
    """What an experiment comes to."""

    name: str
    stages: Mapping[str, PlannedStage]
    """In the order they run."""
    unread: tuple[str, ...]
    """Stages that nobody reads though all they leave is for others."""

    @property
    def to_run(self) -> list[PlannedStage]:
        """Stages whose artifact is not there yet."""
        return [stage for stage in self.stages.values() if stage.artifact is None]

    @property
    def headline(self) -> str:
        """The first line of what is printed."""
        missing = len(self.to_run)
        return f"plan {self.name}: {len(self.stages)} stages, {len(self.stages) - missing} done, {missing} to run"


def make_plan(config: SolarConfig, store: Store) -> Plan:
    """Decide everything that can be decided before work starts; reads the disk, writes nothing but remembered hashes.

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
    digests = Digests.load(Path(config.paths.root) / "digests.json")
    planned: dict[str, PlannedStage] = {}
    for name, stage in ordered.items():
        inputs = {source: planned[source].id for source in edges[name]}
        try:
            own_id = identity(stage, inputs, digests)
        except ConfigError as error:
            raise ConfigError(f"stages.{name}.{error}") from None
        planned[name] = PlannedStage(name, stage, own_id, inputs, store.find(name, own_id), facts.get(name))
    digests.save()
    return Plan(config.name, planned, _unread(ordered, edges))


def _unread(stages: Mapping[str, StageConfig], edges: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    read = {source for name in stages for source in edges[name]}
    for_others = {"text", "tokenizer", "tokens"}
    return tuple(
        name for name, stage in stages.items() if STAGES[stage.kind].produces in for_others and name not in read
    )
