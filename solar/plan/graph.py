"""References as edges of a graph, and the order in which stages run."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from solar.config.base import StageConfig
from solar.config.kinds import STAGES, fits
from solar.config.links import pointers
from solar.errors import PlanError, hint

Edges = Mapping[str, tuple[str, ...]]
"""Stage name -> names of the stages it reads, each once, in the order of its fields."""


def link(stages: Mapping[str, StageConfig]) -> Edges:
    """The edges of the graph.

    Raises:
        PlanError: a reference names a stage that is not there, or one that leaves something else.
    """
    return {name: tuple(dict.fromkeys(_inputs(name, stages))) for name in stages}


def _inputs(name: str, stages: Mapping[str, StageConfig]) -> Iterable[str]:
    for pointer in pointers(stages[name], "reference"):
        key = f"stages.{name}.{pointer.key}"
        products = {other: STAGES[stage.kind].produces for other, stage in stages.items()}
        fitting = [other for other, product in products.items() if fits(product, pointer.to) and other != name]
        if pointer.value not in stages:
            found = f"names the stage '{pointer.value}', which is not in the plan"
            raise PlanError(f"{key}: {found}{hint(pointer.value, fitting)}")
        if pointer.value not in fitting and pointer.value != name:
            product = products[pointer.value]
            raise PlanError(
                f"{key}: '{pointer.value}' leaves {product}, expected a stage that leaves {pointer.to}"
                f"{hint(pointer.value, fitting)}"
            )
        yield pointer.value


def order(edges: Edges) -> list[str]:
    """Stage names, each after the stages it reads; otherwise in the order written.

    Raises:
        PlanError: stages that wait for each other.
    """
    sorter = TopologicalSorter(edges)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise PlanError(f"stages: {circle} read each other in a circle; break one of the references") from None
    rank, ordered = {name: i for i, name in enumerate(edges)}, []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=rank.__getitem__)
        ordered.append(ready.pop(0))
        sorter.done(ordered[-1])
    return ordered


def upstream(edges: Edges, stage: str) -> set[str]:
    """A stage and everything it is made from."""
    names, todo = set(), [stage]
    while todo:
        name = todo.pop()
        if name not in names:
            names.add(name)
            todo.extend(edges[name])
    return names
