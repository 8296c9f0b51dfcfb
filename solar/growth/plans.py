"""Which base layer runs at which position of the grown model: pure functions of integers.

Every plan becomes one explicit list of sources. With n base layers, position k of the grown model runs base layer
`sources[k]`; the embedding below the first layer is called layer -1 and the final norm above the last one layer n.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from solar.config.growth_plan import GrowthPlan, PlanName
from solar.errors import PlanError


@dataclass(frozen=True)
class Seam:
    """A place where base layer `above` reads what base layer `below` wrote, though they were no neighbours."""

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
        """One line for people."""
        runs = ", ".join(_range_text(run) for run in self.runs)
        new = len(self.new_positions)
        return (
            f"{self.base_layers} -> {self.num_hidden_layers} layers: {runs}; {new or 'none'} new; {_seams_text(self)}"
        )

    def table(self) -> str:
        """A line a run: positions, base layers, and how many of them are new.

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
    assert plan.plan is not None
    return LayerPlan(num_hidden_layers, tuple(_RESOLVERS[plan.plan](plan, num_hidden_layers)))


def _dus(plan: GrowthPlan, n: int) -> Sequence[int]:
    p, q = _dropped_layers(plan, n)
    return [*range(n - p), *range(q, n)]


def _dropped_layers(plan: GrowthPlan, n: int) -> tuple[int, int]:
    """Layers dropped from the end of the first copy and from the start of the second."""
    if plan.p is not None and plan.q is not None:
        _expect("p", plan.p, 0, n, f"0..{n} with p + q at most {n} (the base's layers)", "choose a smaller p")
        _expect("q", plan.q, 0, n - plan.p, f"0..{n - plan.p} (the base's {n} layers less p)", "choose a smaller q")
        return plan.p, plan.q
    half = f"half of the base's {n} layers"
    if plan.m is not None:
        m = plan.m
        _expect("m", m, 0, n // 2, f"0..{n // 2} ({half})", "choose a smaller m" if m > 0 else "choose another m")
    elif plan.m_fraction is not None:
        _expect("m_fraction", plan.m_fraction, 0, 0.5, "0..0.5", "choose another share")
        m = min(round(plan.m_fraction * n), n // 2)
    else:
        assert plan.target_layers is not None
        m = _m_of_target(plan.target_layers, n)
    return m, m


def _m_of_target(target: int, n: int) -> int:
    """m = n - s/2 (paper, section 2)."""
    least = n + n % 2
    _expect(
        "target_layers", target, least, 2 * n, f"an even number in {least}..{2 * n}", "choose another depth or plan"
    )
    if target % 2:
        raise PlanError(
            f"target_layers: {target} found, expected an even number in {least}..{2 * n}; "
            f"choose {target - 1} or {target + 1}, or give p and q"
        )
    return n - target // 2


def _stack(plan: GrowthPlan, n: int) -> Sequence[int]:
    return [*range(n)] * _times(plan)


def _repeat_each(plan: GrowthPlan, n: int) -> Sequence[int]:
    times = _times(plan)
    return [layer for layer in range(n) for _ in range(times)]


def _interleave(plan: GrowthPlan, n: int) -> Sequence[int]:
    assert plan.every is not None
    _expect("every", plan.every, 1, n, f"1..{n} (the base's layers)", "choose another group size")
    copied = range(plan.every - 1, n, plan.every)
    return [position for layer in range(n) for position in (layer,) * (1 + (layer in copied))]


def _middle(plan: GrowthPlan, n: int) -> Sequence[int]:
    assert plan.start is not None and plan.stop is not None
    _expect("start", plan.start, 0, n - 1, f"0..{n - 1} (the base's {n} layers)", "choose another start")
    above = f"{plan.start + 1}..{n} (above start, the base's {n} layers)"
    _expect("stop", plan.stop, plan.start + 1, n, above, "choose another stop")
    return [*range(plan.start), *[*range(plan.start, plan.stop)] * _times(plan), *range(plan.stop, n)]


def _explicit(plan: GrowthPlan, n: int) -> Sequence[int]:
    assert plan.layers is not None
    if not plan.layers:
        raise PlanError(f"layers: an empty list found, expected at least one of 0..{n - 1}; name the layers to run")
    for place, layer in enumerate(plan.layers):
        _expect(f"layers.{place}", layer, 0, n - 1, f"0..{n - 1} (the base's {n} layers)", "choose another layer")
    return plan.layers


def _slices(plan: GrowthPlan, n: int) -> Sequence[int]:
    assert plan.slices is not None
    if not plan.slices:
        raise PlanError(f"slices: an empty list found, expected ranges such as [0, {n}]; name the layers to run")
    for place, bounds in enumerate(plan.slices):
        if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= n:
            raise PlanError(
                f"slices.{place}: {bounds} found, expected [start, stop] with 0 <= start < stop <= {n} "
                f"(the base's layers); choose another range"
            )
    return [layer for start, stop in plan.slices for layer in range(start, stop)]


_RESOLVERS: dict[PlanName, Callable[[GrowthPlan, int], Sequence[int]]] = {
    PlanName.dus: _dus,
    PlanName.stack: _stack,
    PlanName.repeat_each: _repeat_each,
    PlanName.interleave: _interleave,
    PlanName.middle: _middle,
    PlanName.explicit: _explicit,
    PlanName.slices: _slices,
}


def _times(plan: GrowthPlan) -> int:
    assert plan.times is not None
    if plan.times < 1:
        raise PlanError(f"times: {plan.times} found, expected at least 1; 2 doubles the layers")
    return plan.times


def _expect(name: str, value: float, least: float, most: float, expected: str, way_out: str) -> None:
    if not least <= value <= most:
        raise PlanError(f"{name}: {value} found, expected {expected}; {way_out}")


def _range_text(layers: range) -> str:
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"{layers[0]}"


def _seams_text(plan: LayerPlan) -> str:
    """All seams in few words: one by itself, several with the largest distance."""
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
