"""Attention inside segments of one long row: no padding, no mask over the row, documents never see each other.

A micro-batch is one row of T tokens made of documents laid end to end. Work grows with the sum of squared document
lengths, not with T squared. Shapes: B = 1, H query heads, K key/value heads, T tokens, E head size.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "solar_segments"
"""The name of this implementation in `transformers`."""


@dataclass(frozen=True)
class Segment:
    """`length` tokens that attend to each other causally, and to a prefix that stands elsewhere in the row.

    `prefix`: (index of the segment that begins with the prefix, tokens of the prefix).
    """

    length: int
    prefix: tuple[int, int] | None = None


def segment_attention(
    module: torch.nn.Module,
    query_BHTE: Tensor,
    key_BKTE: Tensor,
    value_BKTE: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: list[Segment] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that `transformers` calls in every layer; `segments` comes from the forward's keywords.

    Without segments every row is one document, whose first tokens may be known by their cached keys and values alone.
    """
    assert attention_mask is None, "rows are not padded on the left, so no mask is needed"
    if segments is None:
        whole_BHTE = _attend(query_BHTE, key_BKTE, value_BKTE, scaling, dropout, sliding_window)
        return whole_BHTE.transpose(1, 2), None
    assert query_BHTE.shape[0] == 1, "segments describe one row"
    assert sum(segment.length for segment in segments) == query_BHTE.shape[2], "segments must cover the row"
    blocks = [(segment, len(list(run))) for segment, run in groupby(segments)]
    sizes = [segment.length * count for segment, count in blocks]
    queries, keys, values = (torch.split(tensor, sizes, dim=2) for tensor in (query_BHTE, key_BKTE, value_BKTE))
    starts = [0]
    for _segment, count in blocks:
        starts.append(starts[-1] + count)
    outputs = []
    for (segment, count), query, key, value in zip(blocks, queries, keys, values, strict=True):
        if segment.prefix is not None:
            block, shared = starts.index(segment.prefix[0]), segment.prefix[1]
            key = torch.cat((keys[block][:, :, :shared], key), dim=2)
            value = torch.cat((values[block][:, :, :shared], value), dim=2)
        else:
            query, key, value = (_as_batch(tensor, count, segment.length) for tensor in (query, key, value))
        attended_NHLE = _attend(query, key, value, scaling, dropout, sliding_window)
        outputs.append(attended_NHLE.transpose(1, 2).flatten(0, 1))
    attended_THE = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return attended_THE[None], None


def _as_batch(run_1HTE: Tensor, count: int, length: int) -> Tensor:
    """`count` neighbours of equal length side by side: [count, H, length, E]."""
    _, heads, _, size = run_1HTE.shape
    return run_1HTE.reshape(heads, count, length, size).transpose(0, 1)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float, window: int | None
) -> Tensor:
    """Causal attention; the last query sees the last key, each query at most the `window` keys up to its own."""
    queries, keys = query.shape[2], key.shape[2]
    mask = None
    if queries != keys or (window is not None and keys > window):
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
        if window is not None:
            mask = mask.triu(keys - queries - window + 1)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        dropout_p=dropout,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _no_mask(*_: Any, **__: Any) -> None:
    """Segments replace the mask over the row, whose size would grow with T squared."""


# Segments differ in every batch, so attention runs outside the graph of compiled layers.
AttentionInterface.register(NAME, torch.compiler.disable(segment_attention))  # type: ignore[no-untyped-call]
AttentionMaskInterface.register(NAME, _no_mask)
