"""Stage `pretrain`: pretraining, or continued pretraining, with next-token loss on every token."""

from pathlib import Path

from solar.config.training import PretrainConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.training.fit import fit
from solar.training.modules.next_token import ContinuedPretraining


def run(config: PretrainConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `model/` and `logs/metrics.jsonl`."""
    model, data = inputs[config.model].path / "model", inputs[config.data].path
    return fit(ContinuedPretraining, config, model, data, output, context)
