"""JSON as the reader of the safetensors format takes it: no name twice, no number that is none."""

import json
import math
import re
from typing import Any, NoReturn

UINT64 = 2**64
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: bytes) -> Any:
    """Raises `ValueError` or `RecursionError` for what is no such JSON."""
    return json.loads(
        text.decode(),
        object_pairs_hook=unique,
        parse_int=_integer,
        parse_float=_finite,
        parse_constant=_no_constant,
    )


def is_text(value: Any) -> bool:
    """Whether a value is a text of valid characters."""
    return isinstance(value, str) and _SURROGATE.search(value) is None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The entries of an object. Raises `ValueError` for a name that comes twice."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in {other for other, _ in pairs[:i]})
        raise ValueError(f"{twice!r} comes twice")
    return entries


def _integer(text: str) -> int | float:
    """An integer, or for what the format's reader takes as a float (-0, beyond 64 bits) a float."""
    value = int(text) if len(text) < 32 else UINT64
    return float(text) if value >= UINT64 or text.startswith("-") else value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is out of range")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
