"""The layers that each kind of plan runs, as base layers from bottom to top."""

from collections.abc import Callable, Sequence

from solar.config.growth_plan import GrowthPlan, PlanName
from solar.errors import PlanError


def sources(plan: GrowthPlan, n: int) -> Sequence[int]:
    """The base layer at each position of the grown model, for a base of n layers.

    Raises `PlanError` whose message starts with the parameter's name and gives its valid range.
    """
    assert plan.plan is not None
    return _RESOLVERS[plan.plan](plan, n)


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
