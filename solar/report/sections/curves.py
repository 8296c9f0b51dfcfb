"""Training curves: one small picture for each stage that trained."""

from dataclasses import dataclass

from markupsafe import Markup

from solar.report.charts import Chart, Line, Point
from solar.report.entries import Entry, Run
from solar.report.numbers import compact, is_finite, plain


@dataclass(frozen=True)
class Curve:
    """One picture with its words."""

    title: str
    words: str
    svg: Markup


def training_curves(run: Run) -> list[Curve]:
    """Loss of every training stage."""
    curves = []
    for entry in run.entries:
        if entry.log():
            chart = Chart([_line(entry, "loss", "train"), _line(entry, "valid_loss", "held out")], "steps", "loss")
            curves.append(Curve(entry.stage, _words(entry), chart.svg()))
    return curves


def _line(entry: Entry, key: str, name: str) -> Line:
    held_out = key.startswith("valid_")
    return Line(name, _points(entry, key), "b" if held_out else "a", dots=held_out)


def _points(entry: Entry, key: str) -> list[Point]:
    return [(line["step"], line[key]) for line in entry.log() if is_finite(line.get(key))]


def _words(entry: Entry) -> str:
    config, metrics = entry.manifest["config"], entry.manifest["metrics"]
    optimizer = config.get("optimizer", {})
    parts = [str(config.get("duration", ""))]
    if "train_tokens" in metrics:
        parts.append(f"{compact(metrics['train_tokens'])} tokens")
    if "lr" in optimizer:
        parts.append(f"{optimizer.get('name', '')} at {plain(optimizer['lr'])}".strip())
    if "beta" in config:
        parts.append(f"beta {plain(config['beta'])}")
    for key, name in (("loss", "training loss"), ("valid_loss", "held-out loss")):
        if missing := sum(key in line and not is_finite(line[key]) for line in entry.log()):
            parts.append(f"{name} not finite in {missing} of {len(entry.log())} lines of the log")
    return " · ".join(part for part in parts if part)
