"""One HTML file about a run: no network, no script, readable on a phone, light or dark as the reader's device is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from solar.report.command import command
from solar.report.entries import Entry, Run
from solar.report.numbers import compact, duration, plain, share, signed
from solar.report.sections import tables
from solar.report.sections.controls import recoveries
from solar.report.sections.curves import training_curves
from solar.report.sections.diagnosis import diagnoses
from solar.report.sections.pictures import family, layer_map
from solar.report.sections.preference import preference_curves
from solar.report.sections.recovery import Recovery
from solar.report.sections.twin_curves import twin_curves

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(entries: list[Entry], experiment: str, output: Path, overrides: Sequence[str] = ()) -> None:
    """Write the page to the file `output`. Everything from the run and its command line is escaped."""
    run = Run(entries)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"compact": compact, "duration": duration, "share": share, "signed": signed, "plain": plain}
    titles, rows = tables.score_table(run)
    healed = recoveries(run)
    text = environment.get_template("page.html").render(
        experiment=experiment,
        command=command(experiment, overrides),
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        run=run,
        facts=_facts(run, healed),
        family=family(run, lambda entry: _words(run, entry)),
        growths=[(entry, grown, layer_map(grown)) for entry in entries if (grown := entry.growth())],
        titles=titles,
        rows=rows,
        chance=tables.chance(run),
        recoveries=[(recovery, [chart.svg() for chart in recovery.charts()]) for recovery in healed],
        curves=training_curves(run) + twin_curves(run),
        preferences=preference_curves(run),
        diagnoses=diagnoses(run),
        data=tables.data_table(run),
        samples=tables.samples(run),
        provenance=tables.provenance(run),
        software=_software(run),
        config_of=lambda entry: json.dumps(entry.manifest["config"], indent=2, ensure_ascii=False),
        seconds=sum(entry.manifest["wall_seconds"] for entry in entries),
    )
    output.write_text(text, encoding="utf-8")


def _words(run: Run, entry: Entry) -> str:
    score = run.score(entry.stage)
    layers = score.get("layers") or (entry.read("model/config.json") or {}).get("num_hidden_layers", "?")
    loss = f" · {score['nats_per_token']:.3f}" if "nats_per_token" in score else ""
    return f"{layers} layers{loss}"


def _facts(run: Run, healed: list[Recovery]) -> list[tuple[str, str, str]]:
    """The most important numbers: title, value, comparison."""
    facts = []
    for entry in run.entries:
        if grown := entry.growth():
            base = run.parents(entry)[:1]
            sizes = [run.score(model.stage).get("parameters") for model in (*base, entry)]
            words = " to ".join(compact(size) for size in sizes if size) + " parameters" if all(sizes) else ""
            facts.append(("layers", f"{grown['base_layers']} → {len(grown['layers'])}", words))
    for recovery in healed[:1]:
        facts.append(("gap when grown", signed(recovery.gap), f"nats, against {recovery.base}"))
        facts.append((f"after {recovery.healed}", signed(-recovery.gain), f"nats, against {recovery.base}"))
        if recovery.control is not None and recovery.c is not None:
            facts.append(("c", f"{recovery.c:.2f}", f"FLOPs to the same loss, against {recovery.control.stage}"))
    scored = [(entry, run.score(entry.stage)) for entry in run.models()]
    chosen = [(entry, row) for entry, row in scored if "choice_accuracy" in row]
    if chosen:
        entry, row = chosen[-1]
        guessing = share(row["details"]["choice_chance"])
        facts.append(("right choices", share(row["choice_accuracy"]), f"{entry.stage}; guessing {guessing}"))
    return facts


def _software(run: Run) -> dict[str, Any]:
    """Versions of the software that made the stages."""
    versions_of: dict[str, set[str]] = {}
    for entry in run.entries:
        made = entry.manifest["provenance"]
        versions = {"solar": made.get("solar"), "python": made.get("python"), **made.get("packages", {})}
        for name, version in (versions | {"platform": made.get("platform")}).items():
            if version:
                versions_of.setdefault(name, set()).add(str(version))
    return {name: ", ".join(sorted(versions)) for name, versions in versions_of.items()}
