"""Which missing stages must run: a stage that only finished stages read is not made again."""

from collections.abc import Collection, Mapping

from solar.config.base import StageConfig
from solar.config.growth import UpscaleConfig
from solar.plan.graph import Edges


def needed(
    stages: Mapping[str, StageConfig], edges: Edges, done: Collection[str], objective: str | None = None
) -> set[str]:
    """Missing stages that nobody reads or that a running stage reads, and the stage of the objective.

    `stages` are in the order they run; `done` are those whose artifact is there.
    """
    has_reader = {source for name in stages for source in edges[name]}
    wanted = (set(stages) - has_reader) | {(objective or "").split(".")[0]}
    read: set[str] = set()
    running: set[str] = set()
    for name in reversed(list(stages)):
        if name not in done and name in wanted | read:
            running.add(name)
        # A growth without weights of its own is built from its base's whenever it is loaded.
        config = stages[name]
        through = isinstance(config, UpscaleConfig) and not config.materialize and name in read
        if name in running or through:
            read.update(edges[name])
    return running
