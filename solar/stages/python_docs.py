"""Stage `python_docs`: the documentation of the running Python as text."""

from pathlib import Path

from solar.config.data import PythonDocsConfig
from solar.data.python_docs.python_docs import gather
from solar.engine.context import Inputs, Metrics, RunContext


def run(config: PythonDocsConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `documents`, `instructions`, `preferences` and `choices`, each `.jsonl`."""
    metrics = gather(
        config.packages, config.held_out_fraction, config.seed, output, config.max_bytes, progress=context.progress
    )
    documents = metrics["files"]["documents"]
    return {**metrics, "summary": f"{documents['samples']:,} documents, {documents['bytes'] / 1e6:.1f} MB"}
