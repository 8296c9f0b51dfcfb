"""One row of scores: everything that is measured of one model."""

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
"""Scores at the top of a row; the others are its `details`."""

_PROMPT_TOKENS = 20
_BEGINNINGS, _QUESTIONS = 1, 2


def score(
    folder: Path, config: EvaluateConfig, data: Path | None, questions: list[choices.Question], device: str = "cpu"
) -> dict[str, Any]:
    """One row of `scores.json`: `HEADLINES`, `details`, and `samples` of the model's text.

    `data` is a tokens artifact's folder; `questions` come from `choices.read_questions`. Raises `SolarError` for a
    folder that cannot be loaded, and for data or questions that do not fit the model.
    """
    started = time.monotonic()
    decoder, tokenizer = load(folder, device)
    scores: dict[str, Any] = {
        "parameters": decoder.network.num_parameters(),
        "layers": decoder.config.num_hidden_layers,
    }
    texts: list[dict[str, str]] = []
    if data is not None:
        scores |= held_out_loss(decoder, data, config.max_tokens)
        texts += samples.continuations(decoder, tokenizer, _beginnings(data))
    if questions:
        scores |= choices.accuracy(decoder, tokenizer, questions)
        conversations = [question.messages for question in questions if question.messages is not None]
        texts += samples.answers(decoder, tokenizer, conversations[:_QUESTIONS])
    if config.harness:
        scores |= harness.harness_scores(decoder.network, tokenizer, config.harness, config.harness_limit)
    scores["wall_seconds"] = round(time.monotonic() - started, 3)
    headlines = [name for name in scores if name in HEADLINES or name.startswith("accuracy_")]
    row = {name: scores.pop(name) for name in headlines}
    return row | {"details": scores, "samples": texts}


def _beginnings(data: Path) -> list[list[int]]:
    """The first tokens of the first held-out documents, of those that are long enough to be continued."""
    documents = TokenDataset(data, "valid").documents
    lengths = (int(length) for length in np.diff(documents.offsets))
    long = (number for number, length in enumerate(lengths) if length > 2 * _PROMPT_TOKENS)
    return [documents.read(number, 0, _PROMPT_TOKENS).tolist() for number in islice(long, _BEGINNINGS)]
