"""A mixture of sources as tokens on disk."""

from pathlib import Path

from solar.config.data import PrepareDataConfig
from solar.data.prepare import prepare
from solar.engine.context import Inputs, Metrics, RunContext


def run(config: PrepareDataConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Leaves a tokens artifact: `tokens.json` and the arrays of both splits."""
    stages = {source.stage for source in config.sources.values() if source.stage is not None}
    folders = {stage: inputs[stage].path for stage in stages}
    metrics = prepare(config, folders, inputs[config.tokenizer].path, output, progress=context.progress)
    train = metrics["splits"]["train"]
    summary = f"{train['rows']:,} rows, {train['tokens']:,} tokens, {train['trained_share']:.0%} of them trained"
    return {**metrics, "summary": summary}
