"""A mixture of sources as tokens on disk."""

from collections import Counter
from pathlib import Path

from solar.config.data import PrepareDataConfig
from solar.data.prepare import prepare
from solar.engine.context import Inputs, Metrics, RunContext


def run(config: PrepareDataConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Leaves a tokens artifact: `tokens.json` and the arrays of both splits."""
    evaluation_sets = config.decontaminate.against if config.decontaminate is not None else {}
    read = [*config.sources.values(), *evaluation_sets.values()]
    stages = {source.stage for source in read if source.stage is not None}
    folders = {stage: inputs[stage].path for stage in stages}
    metrics = prepare(config, folders, inputs[config.tokenizer].path, output, progress=context.progress)
    return {**metrics, "summary": _summary(metrics)}


def _summary(metrics: Metrics) -> str:
    """Size, rates, what was left out, and what each source of a mixture was to give and gave."""
    train, sources = metrics["splits"]["train"], metrics["sources"]
    told = (
        f"{train['rows']:,} rows, {train['tokens']:,} tokens, {train['trained_share']:.0%} of them trained, "
        f"{train['padding_share']:.1%} padding, {metrics['truncated_samples']:,} samples cut"
    )
    if short := sum(one["too_short"] for one in metrics["evaluation_sets"].values()):
        told += f", {short:,} evaluation rows too short to compare with"
    left_out = sum((Counter(one["dropped"]) for one in sources.values()), Counter())
    if left_out:
        why = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
        told += f", {left_out.total():,} of {sum(one['rows'] for one in sources.values()):,} rows left out ({why})"
    if len(sources) == 1:
        return told
    shares = (f"{name} {one['realised_share']:.2%} of {one['requested_share']:.2%}" for name, one in sources.items())
    return f"{told}; shares: {', '.join(shares)}"
