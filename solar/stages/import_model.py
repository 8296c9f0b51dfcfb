"""Stage `import_model`: import a pretrained model."""

from pathlib import Path

from solar.config.model import ImportModelConfig
from solar.data.encode import class_label
from solar.engine.context import Inputs, Metrics, RunContext
from solar.models.importing import import_model


def run(config: ImportModelConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `model/`."""
    sizes = import_model(config, output / "model")
    relabelled = class_label.relabel(output / "model")
    return {**sizes, "summary": f"{sizes['layers']} layers, {sizes['parameters']:,} parameters{relabelled}"}
