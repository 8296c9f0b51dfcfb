"""Keeping the documents of one row apart: by segments where a family allows them, else by a pass for each document.

Segments need layers that mix tokens through the attention function of `transformers` alone. They are wrong for
state-space layers, convolutions, position biases that are added to scores, soft caps and attention sinks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from solar.network.attention import NAME, Segment
from solar.network.head import body_of

BESIDE_ATTENTION = ("attn_logit_softcapping", "attention_chunk_size", "alibi")
"""Keys of a model's config for changes of scores that segment attention does not compute."""
ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
LEAK = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Share of the largest hidden state by which rounding may change a document from place to place."""


def takes_segments(config: Any) -> bool:
    """Whether the family declares that all its layers use an exchangeable attention function.

    A decoder beside an encoder of pictures does not take segments: the encoder would be handed them, too.
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
        and set(getattr(config, "layer_types", None) or ()) <= ATTENTION_LAYERS
        and not any(getattr(config, key, None) for key in BESIDE_ATTENTION)
    )


def has_sinks(network: PreTrainedModel) -> bool:
    """Whether attention has learned sinks, which segment attention does not compute."""
    return any(name.endswith("sinks") for name, _ in network.named_parameters())


def runs_in_segments(network: PreTrainedModel) -> bool:
    return bool(network.config._attn_implementation == NAME)


@contextmanager
def own_attention(network: PreTrainedModel) -> Iterator[None]:
    """The attention of `transformers` for a while, for code that pads rows on the left and hands in masks."""
    if not runs_in_segments(network):
        yield
        return
    network.set_attn_implementation("sdpa")
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
        states_TD = in_segments(body_of(network), ids, positions, [Segment(length) for length in lengths])[0].float()
    except TypeError:  # a family that does not pass keywords to its attention
        return False
    difference = (states_TD[: len(first)] - states_TD[-len(first) :]).abs().max()
    return bool(difference <= LEAK[network.dtype] * states_TD.abs().max())


def in_segments(body: Callable[..., Any], ids_T: Tensor, positions_T: Tensor, segments: list[Segment]) -> Tensor:
    """Hidden states [1, T, D] of a row in one pass."""
    output = body(
        input_ids=ids_T[None], position_ids=positions_T[None], attention_mask=None, use_cache=False, segments=segments
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
