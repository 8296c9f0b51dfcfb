"""Stage `chunk_pairs`: preference pairs in chunks, from easy to hard."""

import json
from pathlib import Path

from solar.config.preference import ChunkPairsConfig
from solar.engine.context import Inputs, Metrics, RunContext
from solar.training.preference.difficulty_chunks import chunk_pairs


def run(config: ChunkPairsConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `pairs.jsonl` (row, source, margin and chunk of each pair) and `chunks.json` (a list of the chunks)."""
    assert config.logps is not None, "the plan names the stage"
    chunks = chunk_pairs(config, inputs[config.logps].path, inputs[config.data].path, output / "pairs.jsonl")
    (output / "chunks.json").write_text(json.dumps(chunks, indent=1) + "\n", encoding="utf-8")
    ranked_right = ", ".join(f"{chunk['accuracy']:.0%} of {chunk['pairs']:,}" for chunk in chunks)
    return {"chunks": chunks, "summary": f"ranked right: {ranked_right}"}
