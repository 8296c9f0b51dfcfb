"""Stage `report`: one HTML page for a run, and a card for each final model."""

from dataclasses import asdict
from pathlib import Path

from solar.config.evaluation import ReportConfig
from solar.engine.context import OVERRIDES, Inputs, Metrics, RunContext
from solar.report.card import write_card
from solar.report.entries import Entry, Run
from solar.report.page import write_page


def run(config: ReportConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `index.html`, and `cards/<stage>.md` for each model that no other model is made from."""
    entries = []
    for stage in config.of:
        manifest = inputs[stage].manifest
        entries.append(Entry(stage, manifest.kind, inputs[stage].path, asdict(manifest)))
    context.progress(f"{len(entries)} stages on one page")
    path = context.run_dir / OVERRIDES
    overrides = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    write_page(entries, context.experiment, output / "index.html", overrides)
    (output / "cards").mkdir()
    for entry in Run(entries).last_models():
        write_card(entry, Run(entries), output / "cards" / f"{entry.stage}.md")
    return {"stages": len(entries)}
