"""Which way a row of documents is computed, and why: a function of device, number format and family."""

from dataclasses import dataclass
from enum import StrEnum

import torch

LARGEST_VARLEN_HEAD = 256
"""The kernel behind `varlen_attn` takes heads up to this size, in steps of 8."""


class Way(StrEnum):
    """How the documents of one row are computed."""

    segments = "segments"
    """In one row; attention document by document. Exact, and the default on a CPU."""
    varlen = "varlen"
    """In one row; attention in one kernel that reads the offsets of the documents."""
    flex = "flex"
    """In one row; attention in one FlexAttention kernel that reads a block mask."""
    alone = "one by one"
    """A forward pass for each document."""


@dataclass(frozen=True)
class Family:
    """What a network's attention computes, as far as the choice depends on it."""

    in_segments: bool
    """Layers mix tokens through plain causal or windowed attention alone, which may be exchanged."""
    in_flex: bool = False
    """As `in_segments`, except that scores may be capped, joined by sinks, or cut into chunks."""
    features: tuple[str, ...] = ()
    """What `in_flex` has and `in_segments` has not, in words."""
    head_sizes: tuple[int, int] | None = None
    """Of queries and keys, and of values; None where layers differ."""


@dataclass(frozen=True)
class Choice:
    way: Way
    reason: str

    def __str__(self) -> str:
        return f"{self.way} ({self.reason})"


def choose(
    device_type: str, dtype: torch.dtype, family: Family, *, shares_prompts: bool = False, dropout: bool = False
) -> Choice:
    """`dtype`: of queries, keys and values. `dropout`: attention weights are dropped in this pass."""
    if not (family.in_segments or family.in_flex):
        return Choice(Way.alone, "the family mixes tokens outside an attention function that may be exchanged")
    if device_type != "cuda" or dropout:
        reason = "attention dropout" if device_type == "cuda" else device_type
        if family.in_segments:
            return Choice(Way.segments, reason)
        return Choice(Way.alone, f"{' and '.join(family.features)}, {reason}")
    if not family.in_segments:
        return Choice(Way.flex, " and ".join(family.features))
    if shares_prompts:
        return Choice(Way.flex, "answers share a prompt")
    if dtype not in (torch.bfloat16, torch.float16):
        return Choice(Way.flex, f"{_name(dtype)}, which varlen does not take")
    if family.head_sizes is None:
        return Choice(Way.flex, "heads of several sizes")
    keys, values = family.head_sizes
    if keys != values or keys % 8 or keys > LARGEST_VARLEN_HEAD:
        return Choice(Way.flex, f"heads of {keys} and {values}, which varlen does not take")
    return Choice(Way.varlen, f"{_name(dtype)} on cuda")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
