"""Stage `train_tokenizer`: a byte-level BPE tokenizer, trained on a text stage."""

from pathlib import Path

from solar.config.model import TrainTokenizerConfig
from solar.data.encode.tokenizer import train
from solar.engine.context import Inputs, Metrics, RunContext


def run(config: TrainTokenizerConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `tokenizer/`, a Hugging Face folder."""
    text = inputs[config.text].path
    metrics = train(text, config.vocab_size, config.template, output / "tokenizer", progress=context.progress)
    return {**metrics, "summary": f"{config.vocab_size:,} tokens"}
