"""Training curves: one small picture for each stage that trained."""

from dataclasses import dataclass

from markupsafe import Markup

from solar.report.charts import Chart, Line, Point
from solar.report.entries import Entry, Run
from solar.report.numbers import compact, plain


@dataclass(frozen=True)
class Curve:
    """One picture with its words."""

    title: str
    words: str
    svg: Markup


def training_curves(run: Run) -> list[Curve]:
    """Loss of every training stage; for preference stages also how often the policy prefers the chosen answer."""
    curves = []
    for entry in run.entries:
        if entry.log():
            chart = Chart([_line(entry, "loss", "train"), _line(entry, "valid_loss", "held out")], "steps", "loss")
            curves.append(Curve(entry.stage, _words(entry), chart.svg()))
        if _points(entry, "accuracy"):
            lines = [_line(entry, "accuracy", "train"), _line(entry, "valid_accuracy", "held out")]
            svg = Chart(lines, "steps", "pairs ranked right").svg()
            curves.append(Curve(f"{entry.stage}: pairs ranked right", "share of pairs, against the reference", svg))
    return curves


def _line(entry: Entry, key: str, name: str) -> Line:
    held_out = key.startswith("valid_")
    return Line(name, _points(entry, key), "b" if held_out else "a", dots=held_out)


def _points(entry: Entry, key: str) -> list[Point]:
    return [(line["step"], line[key]) for line in entry.log() if key in line]


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
    return " · ".join(part for part in parts if part)
