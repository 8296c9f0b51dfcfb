"""The tables of a report, as plain rows; the page draws them."""

from dataclasses import dataclass
from typing import Any

from solar.report.entries import Entry, Run
from solar.report.numbers import compact, duration, is_finite, share


@dataclass(frozen=True)
class Cell:
    """One value, in words."""

    text: str
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Column:
    """One measure of all models."""

    key: str
    title: str
    more_is_better: bool
    percent: bool = False


COLUMNS = (
    Column("nats_per_token", "loss, nats a token", more_is_better=False),
    Column("bits_per_byte", "bits a byte", more_is_better=False),
    Column("choice_accuracy", "right choices", more_is_better=True, percent=True),
)


def score_table(run: Run) -> tuple[list[str], list[tuple[Entry, list[Cell]]]]:
    """Titles, and a row of cells for each scored model in the order they were made; the best values are marked."""
    rows = [(entry, run.score(entry.stage)) for entry in run.models()]
    rows = [(entry, row) for entry, row in rows if row]
    broken = {entry.stage: run.not_finite(entry.stage) for entry, _ in rows}
    columns = [
        column
        for column in COLUMNS
        if any(column.key in row or column.key in broken[entry.stage] for entry, row in rows)
    ]
    tasks_of_choices = dict.fromkeys(key for _, row in rows for key in row if key.startswith("accuracy_"))
    columns += [
        Column(key, key.removeprefix("accuracy_"), more_is_better=True, percent=True) for key in tasks_of_choices
    ]
    tasks = list(dict.fromkeys(task for _, row in rows for task in row.get("details", {}).get("harness", {})))
    columns += [Column(task, task, more_is_better=True, percent=True) for task in tasks]
    if len(tasks) > 1:
        columns.append(Column("harness_mean", "H6" if len(tasks) == 6 else "mean", more_is_better=True, percent=True))
    values = {entry.stage: row | row.get("details", {}).get("harness", {}) for entry, row in rows}
    best = {column.key: _best(column, list(values.values())) for column in columns}
    table = []
    for entry, row in rows:
        cells = [Cell(str(row["layers"])), Cell(compact(row["parameters"]))]
        for column in columns:
            value = values[entry.stage].get(column.key)
            own = _cell(column, value, best[column.key], row)
            cells.append(Cell("not finite") if column.key in broken[entry.stage] else own)
        table.append((entry, cells))
    return ["model", "layers", "parameters", *(column.title for column in columns)], table


def _best(column: Column, rows: list[dict[str, Any]]) -> float | None:
    values = [row[column.key] for row in rows if is_finite(row.get(column.key))]
    if len(set(values)) < 2:
        return None
    return float(max(values) if column.more_is_better else min(values))


def _cell(column: Column, value: float | None, best: float | None, row: dict[str, Any]) -> Cell:
    if not is_finite(value):
        return Cell("")
    note = ""
    if column.key == "choice_accuracy" and "choice_stderr" in row.get("details", {}):
        note = f"± {100 * row['details']['choice_stderr']:.1f}"
    return Cell(share(value) if column.percent else f"{value:.3f}", value == best, note)


def chance(run: Run) -> str:
    """The score of guessing, in words; empty if no choices were scored."""
    for row in run.scores():
        details = row.get("details", {})
        if "choice_chance" in details:
            return f"{details['choice_questions']} questions; guessing scores {share(details['choice_chance'])}"
    return ""


@dataclass(frozen=True)
class DataRow:
    """One source of one prepared data set."""

    stage: str
    source: str
    tokens: str
    share: str
    rows: str
    dropped: str


def data_table(run: Run) -> list[DataRow]:
    """What each training set was made of, and what was left out."""
    table = []
    for entry in run.entries:
        header = entry.read("tokens.json")
        if header is None:
            continue
        sources = entry.manifest["metrics"].get("sources", {})
        for name, place in header["splits"]["train"]["sources"].items():
            facts = sources.get(name, {})
            dropped = [f"{count:,} {reason}" for reason, count in facts.get("dropped", {}).items()]
            realised = facts.get("realised_share")
            table.append(
                DataRow(
                    entry.stage,
                    name,
                    compact(place["tokens"]),
                    "" if realised is None else share(realised),
                    f"{facts['rows']:,}" if "rows" in facts else "",
                    ", ".join(dropped) or "none",
                )
            )
    return table


def samples(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each prompt with the models' continuations; models that wrote the same text share an entry."""
    prompts: dict[str, dict[str, list[str]]] = {}
    for row in run.scores():
        for sample in row.get("samples", []):
            prompts.setdefault(sample["prompt"], {}).setdefault(sample["text"], []).append(row["stage"])
    return [
        (prompt.strip(), [(", ".join(stages), text) for text, stages in texts.items()])
        for prompt, texts in prompts.items()
    ]


def said(metrics: dict[str, Any]) -> str:
    """What a stage says of itself beside its name; the estimate of memory leaves activations out.

    >>> said({"attention": "segments (cpu)", "peak_memory_bytes": 2.5e9, "estimated_memory_bytes": 1_000_000_000})
    'attention segments (cpu) · memory 2.5 GB (estimate without activations 1 GB)'
    """
    forms = {"summary": "{}", "attention": "attention {}", "adapter_base": "base in {}"}
    words = [form.format(metrics[name]) for name, form in forms.items() if name in metrics]
    if (peak := metrics.get("peak_memory_bytes")) is not None:
        estimate = metrics.get("estimated_memory_bytes")
        beside = "" if estimate is None else f" (estimate without activations {estimate / 1e9:.3g} GB)"
        words.append(f"memory {peak / 1e9:.3g} GB{beside}")
    return " · ".join(words)


def provenance(run: Run) -> list[tuple[Entry, str, str, str]]:
    """Each stage with the time it took, what it read, and what it says of itself."""
    names = {entry.manifest["id"]: entry.stage for entry in run.entries}
    return [
        (
            entry,
            duration(entry.manifest["wall_seconds"]),
            ", ".join(names.get(identity, name) for name, identity in entry.manifest["inputs"].items()),
            said(entry.manifest["metrics"]),
        )
        for entry in run.entries
    ]
