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
    device_type: str,
    dtype: torch.dtype,
    family: Family,
    *,
    shares_prompts: bool = False,
    dropout: bool = False,
    deterministic: bool = False,
) -> Choice:
    """`dtype`: of queries, keys and values. `dropout`: attention weights are dropped in this pass.

    `deterministic`: a resumed run must repeat every bit. Compiled FlexAttention depends on the rows since the start.
    """
    if not (family.in_segments or family.in_flex):
        return Choice(Way.alone, "the family mixes tokens outside an attention function that may be exchanged")
    if device_type != "cuda" or dropout:
        return _exact(family, "attention dropout" if device_type == "cuda" else device_type)
    obstacle = _obstacle(dtype, family, shares_prompts)
    if obstacle is None:
        return Choice(Way.varlen, f"{_name(dtype)} on cuda")
    if not deterministic:
        return Choice(Way.flex, obstacle)
    return _exact(family, f"deterministic, {obstacle}" if family.in_segments else "deterministic")


def _exact(family: Family, reason: str) -> Choice:
    """The way without kernels over the whole row."""
    if family.in_segments:
        return Choice(Way.segments, reason)
    return Choice(Way.alone, f"{' and '.join(family.features)}, {reason}")


def _obstacle(dtype: torch.dtype, family: Family, shares_prompts: bool) -> str | None:
    """What `varlen` cannot say or take, if anything."""
    if not family.in_segments:
        return " and ".join(family.features)
    if shares_prompts:
        return "answers share a prompt"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"{_name(dtype)}, which varlen does not take"
    if family.head_sizes is None:
        return "heads of several sizes"
    keys, values = family.head_sizes
    if keys != values or keys % 8 or keys > LARGEST_VARLEN_HEAD:
        return f"heads of {keys} and {values}, which varlen does not take"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
