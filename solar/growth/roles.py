"""The role of each parameter in a grown model, from the provenance in config.json."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from solar.growth.provenance import PROVENANCE_KEY


class Role(StrEnum):
    """What growth made of a parameter."""

    old = "old"
    """Of a layer the base had."""
    new = "new"
    """Of a layer that growth added."""
    seam = "seam"
    """Of a layer the base had, next to a boundary the base did not have."""
    embed = "embed"
    """Outside the layers: embeddings and head."""
    norm = "norm"
    """Outside the layers: the final norm."""


_NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


def roles(config: dict[str, Any]) -> Callable[[str], Role]:
    """Parameter name -> role, for the model of a config.json. In a model that was not grown, every layer is old.

    >>> role = roles({"solar": {"layers": [0, 1, 0, 1], "new": [2, 3], "seams": [[2, 1, 0]], "stack": "model.layers."}})
    >>> role("model.layers.0.mlp.up_proj.weight").value, role("model.layers.1.mlp.up_proj.weight").value
    ('old', 'seam')
    >>> role("model.layers.2.mlp.up_proj.weight").value, role("lm_head.weight").value, role("model.norm.weight").value
    ('new', 'embed', 'norm')
    """
    grown = config.get(PROVENANCE_KEY) or {}
    new = set(grown.get("new", []))
    at_seams = {position for seam in grown.get("seams", []) for position in (seam[0] - 1, seam[0])}
    layer_of = _layer_finder(grown.get("stack", ""))

    def role(name: str) -> Role:
        layer = layer_of(name)
        if layer is None:
            return Role.norm if _is_norm(name) else Role.embed
        if layer in new:
            return Role.new
        return Role.seam if layer in at_seams else Role.old

    return role


def _layer_finder(stack: str) -> Callable[[str], int | None]:
    """The number of the layer a parameter belongs to. `stack`: the text before the number in the base's files.

    Only its last two words count: wrappers put other words before them.
    """
    words = [re.escape(word) for word in stack.strip(".").split(".")[-2:] if word]
    last = words[-1] if words else ""
    exact = re.compile(rf"(?:^|\.){'[.]'.join(words)}\.(\d+)\.") if words else _NUMBER
    loose = re.compile(rf"(?:^|\.){last}\.(\d+)\.") if last else _NUMBER

    def find(name: str) -> int | None:
        match = exact.search(name) or loose.search(name)
        return int(match.group(1)) if match else None

    return find


def _is_norm(name: str) -> bool:
    return re.search(r"norm|(^|\.)ln", name.lower()) is not None
