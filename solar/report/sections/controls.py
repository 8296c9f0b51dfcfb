"""The models that a grown model is compared with: its base, and the base after further training."""

from typing import Any

from solar.config.training import CONTROL_SUFFIX
from solar.report.charts import Point
from solar.report.entries import Entry, Run
from solar.report.numbers import is_finite
from solar.report.sections.recovery import Control, Recovery


def recoveries(run: Run) -> list[Recovery]:
    """A recovery for each grown model that was trained, where the base's loss on the same text is known."""
    recovered = []
    for grown in run.models():
        bases = run.parents(grown) if grown.kind == "upscale" else []
        for healed in run.models():
            points = held_out(healed)
            if bases and points and grown in run.parents(healed):
                control = _control(run, bases[0], healed)
                loss = control.points[0][1] if control else _loss_of_base(run, bases[0], healed)
                if loss is not None:
                    names = (bases[0].stage, grown.stage, healed.stage)
                    recovered.append(Recovery(*names, points, loss, held_out(healed, "flops"), control))
    return recovered


def held_out(entry: Entry, over: str = "tokens") -> list[Point]:
    """(tokens, loss) of each validation in a training log; `over` names another count of the log."""
    return [
        (line[over], line["valid_loss"]) for line in entry.log() if is_finite(line.get("valid_loss")) and over in line
    ]


def _control(run: Run, base: Entry, healed: Entry) -> Control | None:
    """The control that the plan added, or another training of the base with the same settings on the same data."""
    own_name = healed.stage + CONTROL_SUFFIX
    for other in sorted(run.models(), key=lambda entry: entry.stage != own_name):
        alike = other.kind == healed.kind and _data(run, other) == _data(run, healed)
        alike = alike and (other.stage == own_name or _settings(other) == _settings(healed))
        points = held_out(other)
        if alike and base in run.parents(other) and points and points[0][0] == 0:
            return Control(other.stage, points, held_out(other, "flops"))
    return None


def _settings(entry: Entry) -> dict[str, Any]:
    """The settings of a training, except those that only a grown model has, and except the model."""
    own = {"model", "control", "branch", "trainable", "unfreeze_at", "lr_factors"}
    return {key: value for key, value in entry.manifest["config"].items() if key not in own}


def _data(run: Run, entry: Entry) -> set[str]:
    """Ids of the data sets that a stage read."""
    data = {other.manifest["id"] for other in run.entries if other.read("tokens.json") is not None}
    return data & set(entry.manifest["inputs"].values())


def _held_out_rows(entry: Entry) -> Any:
    return entry.manifest["config"].get("max_valid_rows")


def _loss_of_base(run: Run, base: Entry, healed: Entry) -> float | None:
    """The last validation if the base was trained on this data, the first of its further training, or its score."""
    data = _data(run, healed)
    if (points := held_out(base)) and data & set(base.manifest["inputs"].values()):
        return points[-1][1]
    for other in run.models():
        points = held_out(other)
        alike = _data(run, other) == data and _held_out_rows(other) == _held_out_rows(healed)
        if alike and base in run.parents(other) and points and points[0][0] == 0:
            return points[0][1]
    for entry in run.entries:
        if entry.kind == "evaluate" and data & set(entry.manifest["inputs"].values()):
            for row in entry.read("scores.json"):
                if row["stage"] == base.stage and is_finite(row.get("nats_per_token")):
                    return float(row["nats_per_token"])
    return None
