"""Was the growth worth it: how the loss jumps when layers are added, where training closes the gap, and at what cost.

The cost of a loss L is what training takes until held-out text is first read at L or below, between two readings on a
straight line. c = FLOPs of the grown model to L / FLOPs of its control to L, with the lowest L that both reach; growing
paid if it is below 1. What the base had cost before counts for neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from solar.report.charts import Chart, Line, Point
from solar.report.numbers import compact, signed


@dataclass(frozen=True)
class Control:
    """The base that the model was grown from, trained on in the same way."""

    stage: str
    points: list[Point]
    """(tokens trained, loss)."""
    by_flops: list[Point]
    """(FLOPs, loss)."""


@dataclass(frozen=True)
class Recovery:
    """One grown model in training, against the base it was grown from; losses on the same held-out text."""

    base: str
    grown: str
    healed: str
    points: list[Point]
    """(tokens trained, loss); the first is the grown model before any training."""
    base_loss: float
    by_flops: list[Point] = field(default_factory=list)
    """(FLOPs of training, loss), where the log has FLOPs."""
    control: Control | None = None

    @property
    def gap(self) -> float:
        """What growing alone adds to the loss."""
        return self.points[0][1] - self.base_loss

    @property
    def gain(self) -> float:
        """Loss of the base minus the last loss; negative while the gap is open."""
        return self.base_loss - self.points[-1][1]

    @property
    def gain_over_control(self) -> float | None:
        """Last loss of the control minus the last loss; None without a control."""
        return self.control.points[-1][1] - self.points[-1][1] if self.control else None

    @property
    def recovered_at(self) -> float | None:
        """Tokens after which the loss is the base's; None if it never is.

        >>> Recovery("base", "upscale", "pretrain", [(0, 4.0), (100, 3.5), (200, 2.5)], 3.0).recovered_at
        150.0
        """
        return 0.0 if self.gap <= 0 else cost_of(self.base_loss, self.points)

    @property
    def c(self) -> float | None:
        """c; None without a control, without FLOPs in the logs, or where the control starts at L or below.

        >>> control = Control("control", [], [(0, 3.0), (10, 2.0)])
        >>> Recovery("base", "up", "heal", [], 3.0, [(0, 4.0), (6, 2.5), (12, 1.5)], control).c  # 9 / 10 at 2.0
        0.9
        """
        if self.control is None or not self.by_flops or not self.control.by_flops:
            return None
        both = max(min(loss for _, loss in points) for points in (self.by_flops, self.control.by_flops))
        own, others = cost_of(both, self.by_flops), cost_of(both, self.control.by_flops)
        return own / others if own is not None and others else None

    def words(self) -> str:
        """The recovery in one line.

        >>> Recovery("base", "up", "heal", [(0, 4.0), (100, 3.5), (200, 2.5)], 3.0).words()
        'heal: growing added 1.000 nats, closed after 150 tokens; 2.500 at the end, −0.500 against base'
        """
        closed = "not closed" if self.recovered_at is None else f"closed after {compact(self.recovered_at)} tokens"
        gap = (
            f"growing added {self.gap:.3f} nats, {closed}" if self.gap > 0 else f"growing cost {signed(self.gap)} nats"
        )
        end = f"{self.points[-1][1]:.3f} at the end, {signed(-self.gain)} against {self.base}"
        if self.control is None or self.gain_over_control is None:
            return f"{self.healed}: {gap}; {end}"
        c = "" if self.c is None else f"; c {self.c:.2f} (FLOPs to the same loss, against the control's)"
        return f"{self.healed}: {gap}; {end}, {signed(-self.gain_over_control)} against {self.control.stage}{c}"

    def charts(self) -> list[Chart]:
        """Loss over tokens, with the base's line and where the curve meets it; with a control also over FLOPs."""
        marks = [(f"+{self.gap:.2f}", self.points[0])] if self.gap > 0 else []
        if self.recovered_at:
            marks.append((f"after {compact(self.recovered_at)}", (self.recovered_at, self.base_loss)))
        level = [(f"{self.base} {self.base_loss:.3f}", self.base_loss)]
        own = Line(self.healed, self.points, "a", dots=True)
        if self.control is None:
            return [Chart([own], "tokens", "held-out loss", level, marks)]
        beside = Line(self.control.stage, self.control.points, "b", dots=True)
        charts = [Chart([own, beside], "tokens", "held-out loss", level, marks)]
        if self.by_flops and self.control.by_flops:
            lines = [
                Line(self.healed, self.by_flops, "a", dots=True),
                Line(self.control.stage, self.control.by_flops, "b", dots=True),
            ]
            charts.append(Chart(lines, "training FLOPs", "held-out loss", level))
        return charts


def cost_of(loss: float, points: Sequence[Point]) -> float | None:
    """Where a curve is first at a loss or below it; None if it never is.

    >>> cost_of(3.0, [(0, 4.0), (10, 2.0)]), cost_of(3.0, [(2, 2.5), (10, 2.0)]), cost_of(1.0, [(0, 4.0)])
    (5.0, 2, None)
    """
    if points and points[0][1] <= loss:
        return points[0][0]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 <= loss < y0:
            return x0 + (x1 - x0) * (y0 - loss) / (y0 - y1)
    return None
