"""Attention over a row in one FlexAttention kernel, which skips the blocks of a mask that no query sees.

For what the offsets of `varlen` cannot say: answers that share a prompt, soft caps, sinks, chunks. The row is padded to
whole blocks, so that lengths recur and a compiled kernel serves all rows of its length. Shapes: B = 1, H query heads,
K key/value heads, T tokens of the row, P tokens with padding, E head size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import pad

from solar.network.kernels.segments import Scores, Segment

BLOCK = 128
"""Queries and keys of a block."""
Reach = tuple[int | None, int | None]
"""Window and chunk of a layer."""
MASKS_IN_MEMORY = 64


@dataclass(frozen=True)
class Blocks:
    """The block masks of a row, made once for all layers."""

    masks: dict[Reach, BlockMask]
    segments: tuple[Segment, ...]
    sinks: bool
    device: torch.device
    dtype: torch.dtype
    """Of queries, keys and values."""

    def mask(self, reach: Reach) -> BlockMask:
        """The mask of a layer; a layer whose reach the configuration does not name leaves a compiled graph for it."""
        return self.masks[reach] if reach in self.masks else _late_mask(self.segments, reach, self.sinks, self.device)


def blocks_of(
    segments: list[Segment], reaches: Iterable[Reach], sinks: bool, device: torch.device, dtype: torch.dtype
) -> Blocks:
    """Masks for layers of these windows and chunks. Rows of documents of the same lengths share them."""
    row = tuple(segments)
    masks = {reach: block_mask(row, reach, sinks, device) for reach in reaches}
    return Blocks(masks, row, sinks, device, dtype)


@lru_cache(maxsize=MASKS_IN_MEMORY)
def block_mask(segments: tuple[Segment, ...], reach: Reach, sinks: bool, device: torch.device) -> BlockMask:
    """Which keys a query sees. With sinks, the last key of the padding is the sink, which every query sees."""
    document_P, position_P, owner_P, shared_P = (torch.tensor(row, device=device) for row in _layout(segments, sinks))
    padded = len(document_P)
    window, chunk = reach

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (document_P[query] == document_P[key]) & (query >= key)
        seen = own | ((document_P[key] == owner_P[query]) & (position_P[key] < shared_P[query]))
        if window is not None:
            seen = seen & (position_P[query] - position_P[key] < window)
        if chunk is not None:
            seen = seen & (position_P[query] // chunk == position_P[key] // chunk)
        return seen | (key == padded - 1) if sinks else seen

    on_cuda = device.type == "cuda"  # uncompiled, making the mask would hold P squared numbers several times
    return create_block_mask(sees, None, None, padded, padded, device=device, BLOCK_SIZE=BLOCK, _compile=on_cuda)


_late_mask = torch.compiler.disable(block_mask)  # type: ignore[no-untyped-call]


def _layout(segments: tuple[Segment, ...], sinks: bool) -> tuple[list[int], list[int], list[int], list[int]]:
    """Of each token: its document, its position there, the document that begins with its prefix, the prefix's length.

    Padding is a document of its own, so that no softmax is empty.
    """
    tokens = sum(segment.length for segment in segments)
    padded = -(-(tokens + sinks) // BLOCK) * BLOCK
    documents: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    shared: list[int] = []
    for number, segment in enumerate([*segments, Segment(padded - tokens)]):
        owner, prefix = segment.prefix or (-1, 0)
        assert owner < 0 or segments[owner].prefix is None, "a prefix stands at the start of a whole document"
        documents += [number] * segment.length
        positions += range(prefix, prefix + segment.length)
        owners += [owner] * segment.length
        shared += [prefix] * segment.length
    return documents, positions, owners, shared


def flex_over_blocks(
    query_BHTE: Tensor, key_BKTE: Tensor, value_BKTE: Tensor, blocks: Blocks, scores: Scores
) -> Tensor:
    """Attended values, [B, T, H, E]."""
    tokens = query_BHTE.shape[2]
    mask = blocks.mask((scores.window, scores.chunk))
    missing = mask.shape[-1] - tokens
    query, key, value = (pad(tensor, (0, 0, 0, missing)) for tensor in (query_BHTE, key_BKTE, value_BKTE))
    attended_BHPE = _kernel(query.device.type)(
        query,
        key,
        value,
        score_mod=_changed(scores, mask.shape[-1] - 1, query),
        block_mask=mask,
        scale=scores.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    attended: Tensor = attended_BHPE[:, :, :tokens].transpose(1, 2)
    return attended


def _changed(scores: Scores, sink: int, query: Tensor) -> Any:
    """The change of a score before the softmax; `sink`: the key whose score is the sink's."""
    sinks_H = scores.sinks_H
    if scores.softcap is None and sinks_H is None:
        return None
    # A tensor: compiled layers would make a symbol of the number, which FlexAttention does not take.
    softcap = None if scores.softcap is None else query.new_full((), scores.softcap, dtype=torch.float32)

    def change(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        if sinks_H is not None:
            score = torch.where(key == sink, sinks_H[head].to(score.dtype), score)
        return score

    return change


def _kernel(device_type: str) -> Any:
    """FlexAttention, compiled on CUDA unless the code around it is being compiled. On a CPU it holds every score."""
    if device_type == "cpu" or torch.compiler.is_compiling():
        return flex_attention
    return _compiled()


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention)  # the second length makes lengths symbols: two kernels serve all rows
