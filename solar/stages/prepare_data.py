"""Stage `prepare_data`: a mixture of sources as tokens on disk."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solar.config.data import PrepareDataConfig
from solar.data.prepare import prepare
from solar.engine.context import Inputs, Metrics, RunContext

MOST_NAMES = 20
"""Columns that a stage's line names."""


def run(config: PrepareDataConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write a tokens artifact: `tokens.json` and the arrays of both splits."""
    evaluation_sets = config.decontaminate.against if config.decontaminate is not None else {}
    sources = [*config.sources.values(), *evaluation_sets.values()]
    stages = {source.stage for source in sources if source.stage is not None}
    folders = {stage: inputs[stage].path for stage in stages}
    metrics = prepare(config, folders, inputs[config.tokenizer].path, output, progress=context.progress)
    return {**metrics, "summary": _summary(metrics)}


def _summary(metrics: Metrics) -> str:
    """One line: size, shares of trained tokens and padding, what was left out or not read, shares of the sources."""
    train, sources = metrics["splits"]["train"], metrics["sources"]
    line = (
        f"{train['rows']:,} rows, {train['tokens']:,} tokens, {train['trained_share']:.0%} of them trained, "
        f"{train['padding_share']:.1%} padding, {metrics['truncated_samples']:,} samples cut"
    )
    if short := sum(evaluation_set["too_short"] for evaluation_set in metrics["evaluation_sets"].values()):
        line += f", {short:,} evaluation rows too short to compare with"
    left_out = sum((Counter(source["dropped"]) for source in sources.values()), Counter())
    if left_out:
        rows = sum(source["rows"] for source in sources.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
        line += f", {left_out.total():,} of {rows:,} rows left out ({reasons})"
    line += _not_read(sources)
    if len(sources) == 1:
        return line
    shares = (
        f"{name} {source['realised_share']:.2%} of {source['requested_share']:.2%}" for name, source in sources.items()
    )
    return f"{line}; shares: {', '.join(shares)}"


def _not_read(sources: Mapping[str, Any]) -> str:
    """The columns and fields of messages that no source's format reads."""
    names = sorted({name for source in sources.values() for name in source["not_read"]})
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f", columns not read: {', '.join(names[:MOST_NAMES])}{more}" if names else ""
