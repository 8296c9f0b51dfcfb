"""One plot for each sweep: the loss that growing added, and the loss after training, over the swept values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solar.report.entries import Run
from solar.report.sections.controls import recoveries
from solar.report.sections.recovery import Recovery

AXES = {"stages.upscale.m": "m, layers dropped from each of the two copies"}
"""Key -> label of the axis."""


@dataclass(frozen=True)
class Job:
    """One finished run of a sweep."""

    overrides: dict[str, str]
    """Key -> value, as on the command line."""
    run: Run
    objective: dict[str, float] | None = None
    """`stage.metric` -> value, where the sweep has an objective."""


def swept(jobs: list[Job]) -> list[str]:
    """The keys whose values differ between jobs.

    >>> swept([Job({"stages.upscale.m": "1", "logger": "none"}, Run([])), Job({"stages.upscale.m": "2"}, Run([]))])
    ['stages.upscale.m', 'logger']
    """
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def table(jobs: list[Job]) -> list[dict[str, Any]]:
    """A row for each grown model that was trained: swept values, and held-out losses in nats a token.

    Losses are those of an evaluation that scored base, grown and trained model alike; where there is none, those
    of the validation during training. `measured` says which.
    """
    rows = []
    for job in jobs:
        for recovery in recoveries(job.run):
            measured, (base, step0, trained) = _losses(job.run, recovery)
            entry = {entry.stage: entry for entry in job.run.entries}
            growth = entry[recovery.grown].growth() or {}
            rows.append(
                {key: _value(job.overrides.get(key)) for key in swept(jobs)}
                | {
                    "trained": entry[recovery.healed].path.name,
                    "layers": len(growth["layers"]),
                    "seams": growth["seams"],
                }
                | {"base_loss": base, "step0_loss": step0, "trained_loss": trained}
                | {"step0_gap": step0 - base, "trained_gap": trained - base}
                | {"train_tokens": recovery.points[-1][0], "measured": measured}
            )
    return rows


def write_sweep(jobs: list[Job], folder: Path) -> Path | None:
    """Write `<swept keys>.json` and `.png` into the folder; None, and no file, if no two growths can be compared."""
    rows, keys = table(jobs), swept(jobs)
    if len({row["trained"] for row in rows}) < 2:
        return None
    picture = folder / f"{'_'.join(key.rpartition('.')[2] for key in keys)}.png"
    picture.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    _plot(rows, keys, picture)
    return picture


def _losses(run: Run, recovery: Recovery) -> tuple[str, list[float]]:
    """Where the losses are from, and those of base, grown and trained model."""
    scores = [run.score(stage).get("nats_per_token") for stage in (recovery.base, recovery.grown, recovery.healed)]
    scored = [float(score) for score in scores if score is not None]
    if len(scored) == len(scores):
        return "evaluation", scored
    return "validation", [recovery.base_loss, recovery.points[0][1], recovery.points[-1][1]]


def _value(text: str | None) -> Any:
    """The text as a number, if it is a number."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return text


def _plot(rows: list[dict[str, Any]], keys: list[str], path: Path) -> None:
    """Two curves against the base's loss: the gap before training, and the gap after training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    numeric = len(keys) == 1 and all(isinstance(row[keys[0]], int | float) for row in rows)
    if numeric:
        rows = sorted(rows, key=lambda row: float(row[keys[0]]))
    places = [row[keys[0]] if numeric else number for number, row in enumerate(rows)]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axhline(
        0, color="#2f8f5b", linestyle="--", linewidth=1.2, label=f"the base, loss {_range(rows, 'base_loss', '.3f')}"
    )
    trained = f"after training on {_range(rows, 'train_tokens', ',.0f')} tokens"
    for name, label, color, away in (
        ("step0_gap", "as grown, before any training (step-0 gap)", "#d9730d", 8),
        ("trained_gap", trained, "#2468b4", -15),
    ):
        heights = [row[name] for row in rows]
        axes.plot(places, heights, marker="o", linestyle="-" if numeric else "", color=color, label=label)
        for place, height in zip(places, heights, strict=True):
            label = f"{height:+.3f}".replace("-", "\N{MINUS SIGN}")
            axes.annotate(
                label, (place, height), (0, away), textcoords="offset points", ha="center", fontsize=9, color=color
            )
    words = [f"{row[keys[0]]}" if numeric else ", ".join(str(row[key]) for key in keys) for row in rows]
    axes.set_xticks(places, [f"{word}\n{row['layers']} layers" for word, row in zip(words, rows, strict=True)])
    axes.margins(x=0.08, y=0.18)
    axes.grid(axis="y", color="#e4e1db")
    axes.spines[["top", "right"]].set_visible(False)
    best = min(range(len(rows)), key=lambda number: float(rows[number]["trained_loss"]))
    at = f"{keys[0].rpartition('.')[2]} = {words[best]}" if len(keys) == 1 else words[best]
    title = f"Lowest loss after training: {_range([rows[best]], 'trained_loss', '.3f')} at {at}"
    axes.set_title(title, loc="left", fontsize=12)
    axes.set_xlabel(", ".join(AXES.get(key, key) for key in keys))
    axes.set_ylabel(f"loss above the base, nats a token ({', '.join(sorted({row['measured'] for row in rows}))})")
    figure.legend(loc="outside lower center", ncols=1, frameon=False)
    figure.savefig(path, dpi=120)


def _range(rows: list[dict[str, Any]], name: str, form: str) -> str:
    """A value in words, or the least and the greatest of several."""
    texts = list(dict.fromkeys(format(value, form) for value in sorted(row[name] for row in rows)))
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
