"""A byte-level BPE tokenizer learnt from a text stage."""

from pathlib import Path

from solar.config.model import TrainTokenizerConfig
from solar.data.encode.tokenizer import train
from solar.engine.context import Inputs, Metrics, RunContext


def run(config: TrainTokenizerConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Leaves `tokenizer/`, a Hugging Face folder."""
    text = inputs[config.text].path
    metrics = train(text, config.vocab_size, config.template, output / "tokenizer", progress=context.progress)
    return {**metrics, "summary": f"{config.vocab_size:,} tokens"}
