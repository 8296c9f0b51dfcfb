"""Stage `dpo`: direct preference optimization against a frozen reference."""

from functools import partial
from pathlib import Path

from solar.config.preference import ALARMING_SHARE, DpoConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.training.fit import fit
from solar.training.preference.difficulty_chunks import read_chunks
from solar.training.preference.module import PreferenceOptimization


def run(config: DpoConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `model/`, `logs/metrics.jsonl` and `reference.safetensors`."""
    model, data = inputs[config.model].path / "model", inputs[config.data].path
    module = partial(
        PreferenceOptimization,
        model_dir=model,
        reference_dir=inputs[config.reference].path / "model",
        data_dir=data,
        logps_dir=None if config.logps is None else inputs[config.logps].path,
    )
    chunks = None if config.chunks is None else read_chunks(inputs[config.chunks].path)
    metrics: Metrics = dict(fit(module, config, model, data, output, context, chunks))
    fell = metrics.get("valid_chosen_fell_last", metrics.get("chosen_fell_last")) or 0.0
    if fell > ALARMING_SHARE:
        metrics["summary"] = f"chosen answers of {fell:.0%} of the pairs became less likely (displacement)"
    return metrics
