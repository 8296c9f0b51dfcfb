"""Which base layer runs at which position of the grown model: pure functions of integers.

Every plan becomes one explicit list of sources. With n base layers, position k of the grown model runs base layer
`sources[k]`; the embedding below the first layer is called layer -1 and the final norm above the last one layer n.
"""

from dataclasses import dataclass
from itertools import pairwise

from solar.config.growth_plan import GrowthPlan
from solar.errors import PlanError
from solar.growth.sources import sources


@dataclass(frozen=True)
class Seam:
    """A place where base layer `above` reads what base layer `below` wrote, although the base does not run them so."""

    position: int
    """Position in the grown model of the layer above the seam; its `num_hidden_layers` for the final norm."""
    below: int
    above: int

    @property
    def distance(self) -> int:
        """Difference of the layers' indices in the base: n - 2m - 1 for dus (paper, section 2)."""
        return abs(self.above - self.below)


@dataclass(frozen=True)
class LayerPlan:
    """A growth plan at a given depth of base.

    >>> plan = LayerPlan(8, (0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7))
    >>> plan.new_positions, plan.seams
    ((6, 7, 8, 9), (Seam(position=6, below=5, above=2),))
    >>> print(plan)
    8 -> 12 layers: 0-5, 2-7; 4 new; seam 5|2 at 6 (distance 3)
    """

    base_layers: int
    """n: `num_hidden_layers` of the base."""
    sources: tuple[int, ...]

    @property
    def num_hidden_layers(self) -> int:
        """s: layers of the grown model."""
        return len(self.sources)

    @property
    def new_positions(self) -> tuple[int, ...]:
        """Positions whose base layer already ran below them."""
        return tuple(k for k, source in enumerate(self.sources) if source in self.sources[:k])

    @property
    def twins(self) -> dict[int, tuple[int, ...]]:
        """Base layer -> its positions, for each base layer that runs more than once."""
        places: dict[int, list[int]] = {}
        for position, source in enumerate(self.sources):
            places.setdefault(source, []).append(position)
        return {source: tuple(positions) for source, positions in places.items() if len(positions) > 1}

    @property
    def seams(self) -> tuple[Seam, ...]:
        """Every boundary the base does not have, bottom to top, those to the embedding and the final norm included."""
        stream = (-1, *self.sources, self.base_layers)
        return tuple(Seam(k, below, above) for k, (below, above) in enumerate(pairwise(stream)) if above != below + 1)

    @property
    def runs(self) -> tuple[range, ...]:
        """The plan as ranges of consecutive base layers, bottom to top."""
        starts = [0, *(seam.position for seam in self.seams if 0 < seam.position < len(self.sources))]
        stops = [*starts[1:], len(self.sources)]
        return tuple(range(self.sources[a], self.sources[b - 1] + 1) for a, b in zip(starts, stops, strict=True))

    @property
    def is_identity(self) -> bool:
        """Whether the grown model is the base."""
        return self.sources == tuple(range(self.base_layers))

    @property
    def keeps_base(self) -> bool:
        """Whether the old layers alone are the whole base in order: the plans that zero_out makes lossless."""
        new = set(self.new_positions)
        old = tuple(source for k, source in enumerate(self.sources) if k not in new)
        return old == tuple(range(self.base_layers))

    def __str__(self) -> str:
        """The plan in one line."""
        runs = ", ".join(_range_text(run) for run in self.runs)
        new = len(self.new_positions)
        return (
            f"{self.base_layers} -> {self.num_hidden_layers} layers: {runs}; {new or 'none'} new; {_seams_text(self)}"
        )

    def table(self) -> str:
        """A line for each run: positions, base layers, and how many of them are new.

        >>> print(LayerPlan(4, (0, 1, 2, 1, 2, 3)).table())
        positions  base layers  new
              0-2          0-2    0
              3-5          1-3    2
        """
        new, position, rows = set(self.new_positions), 0, [("positions", "base layers", "new")]
        for run in self.runs:
            positions = range(position, position + len(run))
            rows.append((_range_text(positions), _range_text(run), str(len(new & set(positions)))))
            position += len(run)
        return "\n".join(f"{a:>9}  {b:>11}  {c:>3}" for a, b, c in rows)


def resolve(plan: GrowthPlan, num_hidden_layers: int) -> LayerPlan:
    """The explicit list a plan means for a base of `num_hidden_layers` layers.

    Raises `PlanError` whose message starts with the parameter's name and gives its valid range.

    >>> from solar.config.growth_plan import PlanName
    >>> resolve(GrowthPlan(PlanName.dus, m=8), 32).num_hidden_layers
    48
    >>> resolve(GrowthPlan(PlanName.interleave, every=2), 4).sources
    (0, 1, 1, 2, 3, 3)
    >>> resolve(GrowthPlan(PlanName.dus, m=5), 8)
    Traceback (most recent call last):
    solar.errors.PlanError: m: 5 found, expected 0..4 (half of the base's 8 layers); choose a smaller m
    """
    for problem in plan.problems():
        raise PlanError(problem)
    return LayerPlan(num_hidden_layers, tuple(sources(plan, num_hidden_layers)))


def _range_text(layers: range) -> str:
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"{layers[0]}"


def _seams_text(plan: LayerPlan) -> str:
    """A single seam with its distance; of several, their number and the widest."""
    seams = plan.seams
    if not seams:
        return "no seam"
    worst = max(seams, key=lambda seam: seam.distance)
    where = f"{_layer_text(worst.below, plan)}|{_layer_text(worst.above, plan)} at {worst.position}"
    if len(seams) == 1:
        return f"seam {where} (distance {worst.distance})"
    return f"{len(seams)} seams, widest {where} (distance {worst.distance})"


def _layer_text(layer: int, plan: LayerPlan) -> str:
    return {-1: "embedding", plan.base_layers: "norm"}.get(layer, str(layer))
