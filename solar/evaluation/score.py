"""Everything that is measured of one model."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from solar.config.evaluation import EvaluateConfig
from solar.data.store.dataset import TokenDataset
from solar.evaluation import choices, harness, samples
from solar.evaluation.loading import load
from solar.evaluation.perplexity import held_out_loss

HEADLINES = ("parameters", "layers", "nats_per_token", "bits_per_byte", "choice_accuracy", "harness_mean")
"""What a row says first; the rest are `details`."""

_PROMPT_TOKENS = 20
_BEGINNINGS, _QUESTIONS = 1, 2


def score(
    folder: Path, config: EvaluateConfig, data: Path | None, questions: list[choices.Question], device: str = "cpu"
) -> dict[str, Any]:
    """One row of `scores.json`: `HEADLINES`, `details`, and `samples` of what the model writes.

    `data` is a tokens artifact's folder; `questions` come from `choices.read_questions`.
    """
    started = time.monotonic()
    model, tokenizer = load(folder, device)
    found: dict[str, Any] = {"parameters": model.num_parameters(), "layers": model.config.num_hidden_layers}
    written: list[dict[str, str]] = []
    if data is not None:
        found |= held_out_loss(model, data, config.max_tokens)
        written += samples.continuations(model, tokenizer, _beginnings(data))
    if questions:
        found |= choices.accuracy(model, tokenizer, questions)
        asked = [question.messages for question in questions if question.messages is not None]
        written += samples.answers(model, tokenizer, asked[:_QUESTIONS])
    if config.harness:
        found |= harness.harness_scores(model, tokenizer, config.harness, config.harness_limit)
    found["wall_seconds"] = round(time.monotonic() - started, 3)
    headlines = [name for name in found if name in HEADLINES or name.startswith("accuracy_")]
    row = {name: found.pop(name) for name in headlines}
    return row | {"details": found, "samples": written}


def _beginnings(data: Path) -> list[list[int]]:
    """First tokens of the first documents of the held-out text that are long enough to go on."""
    documents = TokenDataset(data, "valid").documents
    lengths = (int(length) for length in np.diff(documents.offsets))
    long = (number for number, length in enumerate(lengths) if length > 2 * _PROMPT_TOKENS)
    return [documents.read(number, 0, _PROMPT_TOKENS).tolist() for number in islice(long, _BEGINNINGS)]
