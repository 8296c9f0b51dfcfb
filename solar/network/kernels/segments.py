"""Attention document by document: exact on every device, one small kernel for each run of equally long documents.

Work grows with the sum of squared document lengths, not with T squared. Shapes: B = 1, H query heads, K key/value
heads, T tokens of the row, N documents side by side, L tokens of a document, E head size.
"""

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, softmax


@dataclass(frozen=True)
class Segment:
    """`length` tokens that attend to each other causally, and to a prefix that stands elsewhere in the row.

    `prefix`: (index of the segment that begins with the prefix, tokens of the prefix).
    """

    length: int
    prefix: tuple[int, int] | None = None


@dataclass(frozen=True)
class Segments:
    """The documents of a row, in order."""

    each: list[Segment]


@dataclass(frozen=True)
class Scores:
    """What a layer does to its scores. None: nothing of the kind."""

    scaling: float | None = None
    dropout: float = 0.0
    window: int | None = None
    """A query sees at most this many keys up to its own."""
    chunk: int | None = None
    """A query sees keys of its own chunk of this many positions alone."""
    softcap: float | None = None
    """A score s becomes softcap tanh(s / softcap)."""
    sinks_H: Tensor | None = None
    """A score that joins each softmax and has no value."""


def segment_attention(
    query_BHTE: Tensor, key_BKTE: Tensor, value_BKTE: Tensor, segments: list[Segment], scores: Scores
) -> Tensor:
    """Attended values, [B, T, H, E]."""
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
        attended_NHLE = whole_attention(query, key, value, scores)
        outputs.append(attended_NHLE.transpose(1, 2).flatten(0, 1))
    attended_THE = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return attended_THE[None]


def _as_batch(run_1HTE: Tensor, count: int, length: int) -> Tensor:
    """`count` neighbours of equal length side by side: [count, H, length, E]."""
    _, heads, _, size = run_1HTE.shape
    return run_1HTE.reshape(heads, count, length, size).transpose(0, 1)


def whole_attention(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """Causal attention in documents side by side, [N, H, L, E]; the last query sees the last key."""
    if scores.chunk is not None or scores.softcap is not None or scores.sinks_H is not None:
        return _from_all_scores(query, key, value, scores)
    queries, keys = query.shape[2], key.shape[2]
    mask = None
    if queries != keys or (scores.window is not None and keys > scores.window):
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
        if scores.window is not None:
            mask = mask.triu(keys - queries - scores.window + 1)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scores.scaling,
        dropout_p=scores.dropout,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _from_all_scores(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """Attention that holds every score at once, for what `scaled_dot_product_attention` cannot say."""
    queries, keys, heads = query.shape[2], key.shape[2], query.shape[1]
    key, value = (tensor.repeat_interleave(heads // tensor.shape[1], dim=1) for tensor in (key, value))
    scaling = query.shape[-1] ** -0.5 if scores.scaling is None else scores.scaling
    scores_NHLM = (query @ key.transpose(2, 3) * scaling).float()
    if scores.softcap is not None:
        scores_NHLM = scores.softcap * torch.tanh(scores_NHLM / scores.softcap)
    key_M = torch.arange(keys, device=query.device)
    query_L = key_M[keys - queries :, None]
    seen_LM = key_M <= query_L
    if scores.window is not None:
        seen_LM &= key_M > query_L - scores.window
    if scores.chunk is not None:
        seen_LM &= key_M // scores.chunk == query_L // scores.chunk
    scores_NHLM = scores_NHLM.masked_fill(~seen_LM, -torch.inf)
    if scores.sinks_H is not None:
        sinks = scores.sinks_H.float().view(1, heads, 1, 1).expand(*scores_NHLM.shape[:3], 1)
        scores_NHLM = torch.cat((scores_NHLM, sinks), dim=-1)
    weights_NHLM = softmax(scores_NHLM, dim=-1)[..., :keys].to(value.dtype)
    return torch.nn.functional.dropout(weights_NHLM, scores.dropout) @ value
