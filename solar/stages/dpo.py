"""Direct preference optimization against a frozen reference."""

from functools import partial
from pathlib import Path

from solar.config.preference import DpoConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.training.alignment import PreferenceOptimization
from solar.training.fit import fit


def run(config: DpoConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Leaves `model/`, `logs/metrics.jsonl` and `reference.safetensors`."""
    model, data = inputs[config.model].path / "model", inputs[config.data].path
    reference = inputs[config.reference].path / "model"
    module = partial(PreferenceOptimization, model_dir=model, reference_dir=reference, data_dir=data)
    return fit(module, config, model, data, output, context)
