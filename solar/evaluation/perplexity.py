"""Loss on held-out tokens: nats a token, bits a byte.

Shapes: B rows, T positions of a row, V tokens of the vocabulary.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from solar.data.store.dataset import TokenDataset, collate
from solar.errors import DataError

LOGITS_AT_ONCE = 2**22
"""Bound on B x T x V; a constant, since what is added up together may change the last bits of a sum."""


def held_out_loss(model: Any, folder: Path, max_tokens: int | None = None) -> dict[str, Any]:
    """Mean loss over the trained tokens of the `valid` split, each document on its own.

    Rows are read in order until they hold `max_tokens`; the last one is read whole. Sums are in float64.

    Raises:
        DataError: there is nothing to read, or it was made for another task or vocabulary.
    """
    dataset = TokenDataset(folder, "valid")
    _check(dataset, model, folder)
    nats, tokens = 0.0, 0
    for batch in _batches(dataset, model, max_tokens):
        with torch.inference_mode():
            logits_BTV = model(
                input_ids=batch["input_ids"].to(model.device),
                position_ids=batch["position_ids"].to(model.device),
                use_cache=False,  # with a cache, transformers lets the documents of a row see each other
            ).logits
            labels_BT = batch["labels"].to(model.device)[:, 1:]
            losses = cross_entropy(
                logits_BTV[:, :-1].flatten(0, 1).float(), labels_BT.flatten(), ignore_index=-100, reduction="none"
            )
            nats += float(losses.double().sum())
            tokens += int((labels_BT != -100).sum())
    mean = nats / tokens
    return {"nats_per_token": mean, "bits_per_byte": dataset.bits_per_byte(mean), "tokens": tokens}


def _check(dataset: TokenDataset, model: Any, folder: Path) -> None:
    if dataset.header.task == "preference":
        raise DataError(f"data: {folder} holds preference pairs, expected documents or conversations")
    if not len(dataset):
        raise DataError(f"data: {folder} has an empty valid split; raise its held_out_fraction")
    if dataset.header.vocab_size > model.config.vocab_size:
        raise DataError(
            f"data: {folder} has {dataset.header.vocab_size} different tokens, the model knows "
            f"{model.config.vocab_size}; prepare it with this model's tokenizer"
        )


def _batches(dataset: TokenDataset, model: Any, max_tokens: int | None) -> Iterator[dict[str, Any]]:
    at_once = max(1, LOGITS_AT_ONCE // (dataset.header.sequence_length * model.config.vocab_size))
    rows, read = [], 0
    for index in range(len(dataset)):
        if max_tokens is not None and read >= max_tokens:
            break
        rows.append(dataset[index])
        read += int(dataset.row_tokens[index])
        if len(rows) == at_once:
            yield collate(rows, dataset.header.pad_id)
            rows = []
    if rows:
        yield collate(rows, dataset.header.pad_id)
