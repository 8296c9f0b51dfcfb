"""Measurements of a base before growth. Each value is drawn by its shape: number, list, matrix or table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from solar.report.charts import Chart, Line
from solar.report.entries import Entry, Run
from solar.report.numbers import plain

PICTURE = 320
HINTS = {
    "block_influence": "1 − cosine of a layer's input and output: how much it changes the stream",
    "angular_distance": "how far a block of layers turns the stream; down: layers in the block, right: its first layer",
    "residual_rms": "size of the stream before each layer and after the last",
}
"""Measure -> explanation."""


@dataclass(frozen=True)
class Picture:
    """One measure, drawn."""

    title: str
    words: str
    svg: Markup


@dataclass(frozen=True)
class Table:
    """Objects of one list, as rows of words."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Diagnosis:
    """One `diagnosis.json`."""

    entry: Entry
    facts: list[tuple[str, str]]
    pictures: list[Picture]
    tables: list[Table]


def diagnoses(run: Run) -> list[Diagnosis]:
    """All diagnoses of the run."""
    results = []
    for entry in run.entries:
        content = entry.read("diagnosis.json")
        if not isinstance(content, dict):
            continue
        facts = [(_title(key), _word(value)) for key, value in content.items() if isinstance(value, str | int | float)]
        pictures = [
            Picture(_title(key), HINTS.get(key, ""), svg)
            for key, value in content.items()
            if (svg := _picture(key, value))
        ]
        tables = [_table(key, value) for key, value in content.items() if _holds(value, dict)]
        results.append(Diagnosis(entry, facts, pictures, tables))
    return results


def _picture(key: str, value: Any) -> Markup:
    if _holds(value, int | float) and len(value) > 1:
        points = [(float(layer), float(number)) for layer, number in enumerate(value)]
        return Chart([Line(_title(key), points, "a", dots=True)], "layer", "").svg()
    if _holds(value, list) and all(not row or _holds(row, int | float) for row in value):
        return heat_map([[float(number) for number in row] for row in value], _title(key))
    return Markup("")


def heat_map(rows: Sequence[Sequence[float]], label: str) -> Markup:
    """Values as squares, darker for larger values; rows from the top. A tooltip shows the value of each square."""
    values = [value for row in rows for value in row]
    low, high = min(values), max(values)
    side = PICTURE / max(len(rows), *(len(row) for row in rows))
    square = Markup(
        '<rect class="heat" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"><title>{}</title></rect>'
    )
    squares = [
        square.format(
            round(column * side, 2),
            round(number * side, 2),
            round(side - 0.6, 2),
            round(side - 0.6, 2),
            round(0.06 + 0.94 * (value - low) / ((high - low) or 1.0), 3),
            f"{number}, {column}: {value:.4f}",
        )
        for number, row in enumerate(rows)
        for column, value in enumerate(row)
    ]
    head = Markup('<svg viewBox="0 0 {0} {0}" style="max-width:{0}px" role="img" aria-label="{1}">').format(
        PICTURE, label
    )
    return head + Markup("").join(squares) + Markup("</svg>")


def _table(key: str, value: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in value for name in row))
    columns = [name for name in names if all(isinstance(row.get(name), str | int | float | None) for row in value)]
    return Table(
        _title(key),
        [_title(name) for name in columns],
        [[_word(row.get(name)) for name in columns] for row in value],
    )


def _word(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else plain(value)


def _title(key: str) -> str:
    return key.replace("_", " ")


def _holds(value: Any, kind: Any) -> bool:
    """Whether a value is a list that is not empty and has only elements of a type."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)
