"""Stage `init_model`: make a Llama with random weights."""

from pathlib import Path

from solar.config.model import InitModelConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.models.initialise import initialise


def run(config: InitModelConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `model/`, with the files of its tokenizer."""
    folder = inputs[config.tokenizer].path
    tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder / "model"
    return initialise(config.architecture, tokenizer, config.initializer_range, config.seed, output / "model")
