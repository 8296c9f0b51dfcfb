"""The attention that layers of `transformers` call under a name of our own: no padding, no mask, documents kept apart.

A micro-batch is one row of T tokens made of documents laid end to end. The forward's keyword `layout` says where they
lie, in the form that the chosen way reads (see `solar.network.kernels`). Shapes: B rows, H query heads, K key/value
heads, E head size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from solar.network.kernels.flex import Blocks, flex_over_blocks
from solar.network.kernels.segments import Scores, Segment, Segments, segment_attention, whole_attention
from solar.network.kernels.varlen import Offsets, varlen_attention

__all__ = ["NAME", "Layout", "Segment", "packed_attention"]

NAME = "solar_segments"
"""The name of this implementation in `transformers`."""
Layout = Segments | Offsets | Blocks
"""Where the documents of a row lie, for one way of computing them."""

# The segments differ in every batch, so this way runs outside the graph of compiled layers.
_by_segment = torch.compiler.disable(segment_attention)  # type: ignore[no-untyped-call]


def packed_attention(
    module: torch.nn.Module,
    query_BHTE: Tensor,
    key_BKTE: Tensor,
    value_BKTE: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that `transformers` calls in every layer; `layout` comes from the forward's keywords.

    Without a layout every row is one document, whose first tokens may be known by their cached keys and values alone.
    """
    assert attention_mask is None, "rows are not padded on the left, so no mask is needed"
    scores = Scores(scaling, dropout, sliding_window, _chunk(module), softcap, s_aux)
    if layout is None:
        return whole_attention(query_BHTE, key_BKTE, value_BKTE, scores).transpose(1, 2), None
    if isinstance(layout, Segments):
        return _by_segment(query_BHTE, key_BKTE, value_BKTE, layout.each, scores), None
    assert dropout == 0, "one-kernel attention drops no weights"
    # Autocast does not know these kernels, and rotation in float32 may have widened queries and keys.
    heads = (query_BHTE.to(layout.dtype), key_BKTE.to(layout.dtype), value_BKTE.to(layout.dtype))
    if isinstance(layout, Offsets):
        return varlen_attention(*heads, layout, scores), None
    return flex_over_blocks(*heads, layout, scores), None


def _chunk(module: torch.nn.Module) -> int | None:
    """The layer's chunk, which `transformers` hands to masks alone."""
    config: Any = getattr(module, "config", None)
    chunk: int | None = getattr(config, "attention_chunk_size", None)
    if chunk is None or not config.layer_types:
        return None
    # The layer's number is read last: a compiled layer that reads its number serves no other layer.
    return chunk if config.layer_types[module.layer_idx] == "chunked_attention" else None


# Under a name without a mask function, transformers makes no mask, whose size would grow with T squared, and does not
# look for documents in the positions, which would make the host wait for the device.
AttentionInterface.register(NAME, packed_attention)
