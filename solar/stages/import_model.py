"""Bring a pretrained model in."""

from pathlib import Path

from solar.config.model import ImportModelConfig
from solar.data.encode import class_label
from solar.engine.context import Inputs, Metrics, RunContext
from solar.models.importing import import_model


def run(config: ImportModelConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Leaves `model/`."""
    found = import_model(config, output / "model")
    relabelled = class_label.relabel(output / "model")
    return {**found, "summary": f"{found['layers']} layers, {found['parameters']:,} parameters{relabelled}"}
