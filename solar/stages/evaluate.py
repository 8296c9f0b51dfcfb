"""Stage `evaluate`: score models side by side."""

import json
from pathlib import Path

from solar.config.evaluation import EvaluateConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.evaluation import choices, harness
from solar.evaluation.score import score


def run(config: EvaluateConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `scores.json`, a list with one row for each model, in the order of `models`."""
    if config.harness:
        harness.check_installed()
    data = None if config.data is None else inputs[config.data].path
    questions = (
        [] if config.choices is None else choices.read_questions(inputs[config.choices].path, config.max_choices)
    )
    device = context.trainer.device_type
    rows = []
    for number, stage in enumerate(config.models, 1):
        context.progress(f"{stage}, model {number} of {len(config.models)}")
        rows.append({"stage": stage, **score(inputs[stage].path / "model", config, data, questions, device)})
    (output / "scores.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    metrics = ("nats_per_token", "bits_per_byte", "choice_accuracy", "harness_mean")
    return {
        row["stage"]: {name: row[name] for name in row if name in metrics or name.startswith("accuracy_")}
        for row in rows
    }
