"""Was the growth worth it: how the loss jumps when layers are added, and where training closes the gap."""

from dataclasses import dataclass
from itertools import pairwise

from solar.report.charts import Chart, Line, Point
from solar.report.entries import Entry, Run
from solar.report.numbers import compact


@dataclass(frozen=True)
class Recovery:
    """One grown model in training, against the base it was grown from; losses on the same held-out text."""

    base: str
    grown: str
    healed: str
    points: list[Point]
    """(tokens trained, loss); the first is the grown model before any training."""
    base_loss: float

    @property
    def gap(self) -> float:
        """What growing alone adds to the loss."""
        return self.points[0][1] - self.base_loss

    @property
    def gain(self) -> float:
        """What is won over the base in the end; negative while the gap is open."""
        return self.base_loss - self.points[-1][1]

    @property
    def recovered_at(self) -> float | None:
        """Tokens after which the loss is the base's, between two readings on a straight line; None if it never is.

        >>> Recovery("base", "upscale", "pretrain", [(0, 4.0), (100, 3.5), (200, 2.5)], 3.0).recovered_at
        150.0
        """
        if self.gap <= 0:
            return 0.0
        for (x0, y0), (x1, y1) in pairwise(self.points):
            if y1 <= self.base_loss < y0:
                return x0 + (x1 - x0) * (y0 - self.base_loss) / (y0 - y1)
        return None

    def chart(self) -> Chart:
        """The curve, the base's line, and where they meet."""
        marks = [(f"+{self.gap:.2f}", self.points[0])] if self.gap > 0 else []
        if self.recovered_at:
            marks.append((f"after {compact(self.recovered_at)}", (self.recovered_at, self.base_loss)))
        line = Line(self.healed, self.points, "a", dots=True)
        return Chart([line], "tokens", "held-out loss", [(f"{self.base} {self.base_loss:.3f}", self.base_loss)], marks)


def recoveries(run: Run) -> list[Recovery]:
    """One for each grown model that was trained on, where the base's loss on the same text is known."""
    found = []
    for grown in run.models():
        bases = run.parents(grown) if grown.kind == "upscale" else []
        for healed in run.models():
            points = held_out(healed)
            if bases and points and grown in run.parents(healed):
                loss = _loss_of_base(run, bases[0], healed)
                if loss is not None:
                    found.append(Recovery(bases[0].stage, grown.stage, healed.stage, points, loss))
    return found


def held_out(entry: Entry) -> list[Point]:
    """(tokens, loss) of each reading of held-out text in a training log."""
    return [(line["tokens"], line["valid_loss"]) for line in entry.log() if "valid_loss" in line]


def _loss_of_base(run: Run, base: Entry, healed: Entry) -> float | None:
    """The base's last reading if it was trained on this data, else its score if an evaluation read this data."""
    data = {other.manifest["id"] for other in run.entries if other.read("tokens.json") is not None}
    data &= set(healed.manifest["inputs"].values())
    if points := held_out(base):
        return points[-1][1] if data & set(base.manifest["inputs"].values()) else None
    for entry in run.entries:
        if entry.kind == "evaluate" and data & set(entry.manifest["inputs"].values()):
            for row in entry.read("scores.json"):
                if row["stage"] == base.stage and "nats_per_token" in row:
                    return float(row["nats_per_token"])
    return None
