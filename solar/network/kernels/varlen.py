"""Attention over a row in one kernel of flash attention, which reads the offsets of the documents (CUDA, bf16, fp16).

Shapes: T tokens of the row, H query heads, K key/value heads, E head size, N documents.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from solar.network.kernels.segments import Scores, Segment

_SHORTEST = 128


@dataclass(frozen=True)
class Offsets:
    """Where the documents of a row begin and end, on the device; made once for all layers."""

    offsets_N: Tensor
    """N + 1 numbers in int32, from 0 to T."""
    longest: int
    """At least the length of the longest document: the next power of two, so that compiled layers serve all rows."""
    dtype: torch.dtype
    """Of queries, keys and values."""


def offsets_of(segments: list[Segment], device: torch.device, dtype: torch.dtype) -> Offsets:
    """Of documents that share no prefix."""
    assert all(segment.prefix is None for segment in segments), "varlen cannot say that documents share a prefix"
    lengths = [segment.length for segment in segments]
    offsets_N = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    if device.type == "cuda":
        offsets_N = offsets_N.pin_memory()  # a copy from other memory would wait for the device
    longest = max(_SHORTEST, 1 << (max(lengths) - 1).bit_length())
    return Offsets(offsets_N.to(device, non_blocking=True), longest, dtype)


def varlen_attention(
    query_BHTE: Tensor, key_BKTE: Tensor, value_BKTE: Tensor, offsets: Offsets, scores: Scores
) -> Tensor:
    """Attended values, [B, T, H, E]."""
    assert query_BHTE.shape[0] == 1, "offsets describe one row"
    query_THE, key_TKE, value_TKE = (tensor[0].transpose(0, 1) for tensor in (query_BHTE, key_BKTE, value_BKTE))
    attended_THE = varlen_attn(
        query_THE,
        key_TKE,
        value_TKE,
        offsets.offsets_N,
        offsets.offsets_N,
        offsets.longest,
        offsets.longest,
        scale=scores.scaling,
        window_size=(-1 if scores.window is None else scores.window - 1, 0),  # the kernel does not count the own key
        enable_gqa=query_THE.shape[1] != key_TKE.shape[1],
        num_splits=1,  # else the longest document decides how the sums of the others are split
    )
    assert isinstance(attended_THE, Tensor)
    return attended_THE[None]
