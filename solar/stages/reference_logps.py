"""Stage `reference_logps`: log-probabilities of a frozen reference, computed once for all stages that need them."""

from pathlib import Path

from solar.config.preference import ReferenceLogpsConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.training.preference.reference_pass import reference_pass


def run(config: ReferenceLogpsConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `logps.safetensors`: a table [pairs, 2] for each split, and what the tables were computed from."""
    model, data = inputs[config.model].path / "model", inputs[config.data].path
    trainer = context.trainer
    size = trainer.micro_batch_sizes.get(context.stage, trainer.micro_batch_size)
    pairs = reference_pass(config, model, data, output, trainer, size)
    return {"pairs": pairs, "summary": f"{pairs:,} pairs under {config.model}"}
