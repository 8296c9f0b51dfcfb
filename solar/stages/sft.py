"""Stage `sft`: instruction tuning with next-token loss on the assistant's tokens."""

from pathlib import Path

from solar.config.training import SftConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.training.fit import fit
from solar.training.modules.next_token import InstructionTuning


def run(config: SftConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `model/` and `logs/metrics.jsonl`."""
    model, data = inputs[config.model].path / "model", inputs[config.data].path
    return fit(InstructionTuning, config, model, data, output, context)
