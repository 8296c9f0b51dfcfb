"""Loss on held-out tokens: nats a token, bits a byte; the loss that training's validation measures."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from solar.data.store.dataset import Row, TokenDataset
from solar.errors import DataError, StageError
from solar.network.compatibility import check_positions, check_vocabulary
from solar.network.decoder import Decoder
from solar.network.device import TOKENS_AT_ONCE
from solar.network.microbatch import MicroBatch, from_rows


def held_out_loss(decoder: Decoder, folder: Path, max_tokens: int | None = None) -> dict[str, Any]:
    """Mean loss over the trained tokens of the `valid` split, each document on its own.

    Rows are read in order until they hold `max_tokens`; the last one is read whole. Sums of passes are in float64.

    Raises:
        DataError: the split is empty, or was prepared for another task, vocabulary or number of positions.
        StageError: the loss is not finite.
    """
    dataset = TokenDataset(folder, "valid")
    _check(dataset, decoder, folder)
    nats, tokens = 0.0, 0
    for batch in _batches(dataset, max_tokens, TOKENS_AT_ONCE[decoder.device.type]):
        with torch.inference_mode():
            states_ND = decoder.trained_states(batch.to(decoder.device))
            loss, _ = decoder.head.loss_sum(states_ND, batch.targets_N.to(decoder.device))
        nats += float(loss)
        tokens += batch.trained_tokens
    mean = nats / tokens
    if not math.isfinite(mean):
        raise StageError(
            f"{decoder.network.name_or_path}: the held-out loss on {folder} is {mean}, expected a finite number; the "
            "weights hold numbers that are not finite, or overflow the number format they are stored in"
        )
    return {"nats_per_token": mean, "bits_per_byte": dataset.bits_per_byte(mean), "tokens": tokens}


def _check(dataset: TokenDataset, decoder: Decoder, folder: Path) -> None:
    if dataset.header.task == "preference":
        raise DataError(f"data: {folder} holds preference pairs, expected documents or conversations")
    if not len(dataset):
        raise DataError(f"data: {folder} has an empty valid split; raise its held_out_fraction")
    model = Path(decoder.network.name_or_path)
    check_vocabulary(decoder.network, dataset.header.vocab_size, model, folder)
    check_positions(decoder.network, dataset, model, folder)


def _batches(dataset: TokenDataset, max_tokens: int | None, most: int) -> Iterator[MicroBatch]:
    rows_at_once = max(1, most // dataset.header.sequence_length)
    rows: list[Row] = []
    read = 0
    for index in range(len(dataset)):
        if max_tokens is not None and read >= max_tokens:
            break
        rows.append(dataset[index])
        read += int(dataset.row_tokens[index])
        if len(rows) == rows_at_once:
            yield from_rows(rows)
            rows = []
    if rows:
        yield from_rows(rows)
