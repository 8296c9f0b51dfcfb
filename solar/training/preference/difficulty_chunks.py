"""Easy-to-hard chunks for stepwise DPO (arXiv 2403.19270, section 3.2).

The paper orders by the reward accuracy of M_0. DPO's reward of M_0 against itself is 0 everywhere, so M_0 ranks a pair
right where it gives the chosen answer the higher log-probability: gamma = log p(chosen) - log p(rejected) > 0.
A sum over tokens favours the shorter answer, so gamma may be taken per token instead.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

from solar.config.preference import ChunkBy, ChunkPairsConfig
from solar.data.store.dataset import IGNORED, TokenDataset
from solar.errors import ConfigError, DataError
from solar.network.microbatch import Ints
from solar.training.preference.reference_pass import NAME

PAIRS = "pairs.jsonl"


def chunk_pairs(config: ChunkPairsConfig, logps_dir: Path, data_dir: Path, output: Path) -> list[dict[str, Any]]:
    """Write a line for each pair; return a description of each chunk, from easy to hard."""
    data = TokenDataset(data_dir, "train")
    table = load_file(logps_dir / NAME)["train"].double().numpy()
    samples = [data[row].sample_ids[0] for row in range(len(data))]
    logps = table[samples] / answer_tokens(data) if config.by is ChunkBy.margin_per_token else table[samples]
    margins = logps[:, 0] - logps[:, 1]
    sources = {name: (source.start, source.stop) for name, source in data.split.sources.items()}
    chunks = chunk_numbers(config, margins, sources)
    source_of = {row: name for name, (start, stop) in sources.items() for row in range(start, stop)}
    with output.open("w", encoding="utf-8") as file:
        for row, (margin, chunk) in enumerate(zip(margins.tolist(), chunks.tolist(), strict=True)):
            line = {"row": row, "source": source_of.get(row), "margin": margin, "chunk": chunk}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return [_described(number, chunks, margins, source_of) for number in range(1, len(config.shares) + 1)]


def answer_tokens(data: TokenDataset) -> Ints:
    """Numbers of trained tokens of the chosen and the rejected answer, [rows, 2]."""
    counts = [
        np.add.reduceat(row.labels != IGNORED, [0, row.document_lengths[0]], dtype=np.int64)
        for row in (data[number] for number in range(len(data)))
    ]
    return np.array(counts, np.int64)


def chunk_numbers(
    config: ChunkPairsConfig, margins: npt.NDArray[np.float64], sources: dict[str, tuple[int, int]]
) -> Ints:
    """The chunk of each row, numbered from 1; ties keep the order of the data."""
    chunks = np.zeros(len(margins), np.int64)
    if config.by is ChunkBy.accuracy:
        if len(sources) != len(config.shares):
            raise ConfigError(
                f"steps: found {len(config.shares)} for the {len(sources)} sources of {config.data}, expected one each"
            )
        accuracy = {name: float((margins[start:stop] > 0).mean()) for name, (start, stop) in sources.items()}
        for number, name in enumerate(sorted(sources, key=lambda name: -accuracy[name]), 1):
            chunks[slice(*sources[name])] = number
        return chunks
    easy_first = np.argsort(-margins, kind="stable")
    ends = np.round(np.cumsum(config.shares) * len(margins)).astype(np.int64)
    for number, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True), 1):
        if start == stop:
            raise DataError(f"steps: chunk {number} of {len(ends)} has no pair of the {len(margins)}; take fewer steps")
        chunks[easy_first[start:stop]] = number
    return chunks


def read_chunks(folder: Path) -> Ints:
    """The chunk of each row, from the output of a `chunk_pairs` stage."""
    lines = (folder / PAIRS).read_text(encoding="utf-8").splitlines()
    return np.array([json.loads(line)["chunk"] for line in lines], np.int64)


def _described(
    number: int, chunks: Ints, margins: npt.NDArray[np.float64], source_of: dict[int, str]
) -> dict[str, Any]:
    rows = np.flatnonzero(chunks == number)
    names = sorted({source_of[row] for row in rows.tolist() if row in source_of})
    margins = margins[rows]
    return {
        "chunk": number,
        "sources": names,
        "pairs": len(rows),
        "accuracy": float((margins > 0).mean()),
        "margin": float(margins.mean()),
        "easiest": float(margins.max()),
        "hardest": float(margins.min()),
    }
