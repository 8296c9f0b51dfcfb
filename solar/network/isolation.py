"""Keeping the documents of one row apart: in one pass where a family allows it, else by a pass for each document.

One pass needs layers that mix tokens through the attention function of `transformers` alone. It is wrong for
state-space layers, convolutions, and position biases that are added to scores. Soft caps, attention sinks and chunks
are computed by FlexAttention alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from solar.network.attention import NAME, Layout, Segment
from solar.network.head import body_of
from solar.network.kernels.choice import Family, Way
from solar.network.kernels.flex import Reach, blocks_of
from solar.network.kernels.segments import Segments
from solar.network.kernels.varlen import offsets_of

IN_FLEX = {"attn_logit_softcapping": "soft caps", "attention_chunk_size": "chunks"}
"""Keys of a model's config for changes of scores that FlexAttention computes and segment attention does not."""
BESIDE_ATTENTION = ("alibi", "attn_temperature_tuning")
"""Keys for changes that depend on a token's place in the row, which no way of computing one row undoes."""
ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop", "attn_dropout", "attention_probs_dropout_prob")
"""What families call the share of attention weights that are dropped."""
CHUNKED_LAYER = "chunked_attention"
LEAK = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Share of the largest hidden state by which rounding may change a document from place to place."""


def takes_segments(config: Any) -> bool:
    """Whether the family declares that all its layers use an exchangeable attention function, and plain scores."""
    plain = set(getattr(config, "layer_types", None) or ()) <= ATTENTION_LAYERS
    return plain and takes_one_row(config) and not any(getattr(config, key, None) for key in IN_FLEX)


def takes_one_row(config: Any) -> bool:
    """Whether the family declares that all its layers use an exchangeable attention function.

    A decoder beside an encoder of pictures does not take rows: the encoder would be handed their layout, too.
    """
    if hasattr(config, "get_text_config") and config.get_text_config(decoder=True) is not config:
        return False
    family = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if isinstance(family, (tuple, list)):
        family = family[0]
    return (
        family is not None
        and bool(family._supports_attention_backend)
        and bool(family._can_set_attn_implementation())
        and set(getattr(config, "layer_types", None) or ()) <= {*ATTENTION_LAYERS, CHUNKED_LAYER}
        and not any(getattr(config, key, None) for key in BESIDE_ATTENTION)
    )


def family_of(network: PreTrainedModel) -> Family:
    """What decides how the documents of a row are computed."""
    config = network.config
    features = tuple(words for key, words in IN_FLEX.items() if getattr(config, key, None))
    features += ("sinks",) if has_sinks(network) else ()
    in_segments = runs_in_segments(network) and not features
    in_flex = bool(features) and takes_one_row(config)
    return Family(in_segments, in_flex, features, _head_sizes(config) if in_segments else None)


def _head_sizes(config: Any) -> tuple[int, int] | None:
    """Of queries and keys, and of values; None where layers differ."""
    if getattr(config, "is_heterogeneous", False):
        return None
    parts = [getattr(config, key, None) or 0 for key in ("qk_nope_head_dim", "qk_rope_head_dim")]
    keys: int = sum(parts) or getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return keys, getattr(config, "v_head_dim", None) or keys


def drops_attention(network: PreTrainedModel) -> bool:
    """Whether the next pass drops attention weights at random."""
    return network.training and any(getattr(network.config, key, None) for key in ATTENTION_DROPOUT)


def reaches_of(config: Any) -> set[Reach]:
    """Window and chunk of every kind of layer."""
    window = getattr(config, "sliding_window", None)
    kinds: dict[str, Reach] = {"sliding_attention": (window, None)}
    kinds[CHUNKED_LAYER] = (None, getattr(config, "attention_chunk_size", None))
    types = set(getattr(config, "layer_types", None) or ("full_attention", "sliding_attention"))
    return {kinds.get(kind, (None, None)) for kind in types}


def layout_of(way: Way, segments: list[Segment], network: PreTrainedModel, family: Family) -> Layout:
    """The documents of a row as `way` reads them."""
    device, dtype = network.device, compute_dtype(network)
    if way is Way.varlen:
        return offsets_of(segments, device, dtype)
    if way is Way.flex:
        return blocks_of(segments, reaches_of(network.config), "sinks" in family.features, device, dtype)
    assert way is Way.segments, way
    return Segments(segments)


def compute_dtype(network: PreTrainedModel) -> torch.dtype:
    """The number format of matrix products: that of autocast, where autocast is on, else that of the weights."""
    kind = network.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    dtype: torch.dtype = network.dtype
    return dtype


def has_sinks(network: PreTrainedModel) -> bool:
    """Whether attention has learned sinks, which segment attention does not compute."""
    return any(name.endswith("sinks") for name, _ in network.named_parameters())


def runs_in_segments(network: PreTrainedModel) -> bool:
    """Whether the layers call our own attention."""
    return bool(network.config._attn_implementation == NAME)


@contextmanager
def own_attention(network: PreTrainedModel) -> Iterator[None]:
    """The attention of `transformers` for a while, for code that pads rows on the left and hands in masks."""
    if not runs_in_segments(network):
        yield
        return
    network.set_attn_implementation("eager" if family_of(network).features else "sdpa")
    try:
        yield
    finally:
        network.set_attn_implementation(NAME)


@torch.no_grad()
def segments_hold(network: PreTrainedModel) -> bool:
    """Whether a document has the same hidden states before and after another one: one forward pass of 16 tokens.

    The network must be in evaluation mode.
    """
    first, other = [1, 2, 3, 4, 5, 6], [7, 6, 5, 3]
    ids = torch.tensor([*first, *other, *first], device=network.device) % network.config.vocab_size
    lengths = [len(first), len(other), len(first)]
    positions = torch.cat([torch.arange(length, device=network.device) for length in lengths])
    try:
        states_TD = in_one_pass(body_of(network), ids, positions, Segments([Segment(length) for length in lengths]))[
            0
        ].float()
    except TypeError:  # a family that does not pass keywords to its attention
        return False
    difference = (states_TD[: len(first)] - states_TD[-len(first) :]).abs().max()
    return bool(difference <= LEAK[network.dtype] * states_TD.abs().max())


@torch.no_grad()
def flex_holds(network: PreTrainedModel) -> bool:
    """Whether FlexAttention gives two documents of a row the hidden states that the family's own attention gives.

    Leaves the network on our attention if so, else on the family's own. The network must be in evaluation mode.
    """
    own = network.config._attn_implementation
    ids_T = torch.arange(1, 20, device=network.device) % network.config.vocab_size
    positions_T = torch.cat([torch.arange(length, device=network.device) for length in (12, 7)])
    segments = [Segment(12), Segment(7)]
    expected_TD = one_by_one(body_of(network), ids_T, segments)[0].float()
    network.set_attn_implementation(NAME)
    layout = layout_of(Way.flex, segments, network, family_of(network))
    try:
        states_TD = in_one_pass(body_of(network), ids_T, positions_T, layout)[0].float()
        largest = float((states_TD - expected_TD).abs().max() / expected_TD.abs().max())
    except TypeError:  # a family that does not pass keywords to its attention
        largest = float("nan")
    holds = largest <= LEAK[network.dtype]
    if not holds:
        network.set_attn_implementation(own)
    return holds


def in_one_pass(body: Callable[..., Any], ids_T: Tensor, positions_T: Tensor, layout: Layout) -> Tensor:
    """Hidden states [1, T, D] of a row in one pass."""
    output = body(
        input_ids=ids_T[None], position_ids=positions_T[None], attention_mask=None, use_cache=False, layout=layout
    )
    states: Tensor = output.last_hidden_state
    return states


def one_by_one(body: Callable[..., Any], ids_T: Tensor, segments: list[Segment]) -> Tensor:
    """Hidden states [1, T, D] of a row, by a pass for each document; neighbours of equal length share a pass.

    A prefix that two documents share is computed for each of them.
    """
    documents = torch.split(ids_T, [segment.length for segment in segments])
    whole = [
        ids if segment.prefix is None else torch.cat((documents[segment.prefix[0]][: segment.prefix[1]], ids))
        for segment, ids in zip(segments, documents, strict=True)
    ]
    states = []
    for (_, length), run in groupby(zip(segments, whole, strict=True), key=lambda pair: (len(pair[1]), pair[0].length)):
        states_BLD = body(input_ids=torch.stack([ids for _, ids in run]), use_cache=False).last_hidden_state
        states.append(states_BLD[:, -length:].flatten(0, 1))
    return torch.cat(states)[None]
