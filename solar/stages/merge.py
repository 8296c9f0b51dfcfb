"""Stage `merge`: several models become one."""

from pathlib import Path

from solar.config.merging import MergeConfig
from solar.data.encode import class_label
from solar.engine.context import Inputs, Metrics, RunContext
from solar.merging.merge import merge


def run(config: MergeConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Leaves `model/`, with tokenizer and configuration of the first model."""
    summary = f"{' and '.join(config.models)} by {config.in_words}"
    context.progress(summary)
    base = None if config.base is None else inputs[config.base].path / "model"
    report = merge([inputs[name].path / "model" for name in config.models], output / "model", config, base)
    summary += class_label.relabel(output / "model") + "".join(f"; {note}" for note in report.notes)
    return {"parameters": report.parameters, "tensors": report.tensors, "summary": summary}
