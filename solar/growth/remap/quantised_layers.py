"""Lists of modules in a quantisation's settings (which are not quantised), carried over to the grown stack."""

import re
from collections.abc import Sequence
from typing import Any

from solar.errors import PlanError
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import Decoder
from solar.weights.quantised import KEYS


def remap_quantisation(config: dict[str, Any], decoder: Decoder, plan: LayerPlan) -> dict[str, Any]:
    """A config.json whose quantisation names the grown model's layers.

    Raises `PlanError` for a rule that mentions single layers otherwise than by a module's name.
    """
    stack = decoder.prefixes[0].split(".")[-2]
    return {key: _remapped(value, stack, plan) if key in KEYS else value for key, value in config.items()}


def layer_mentions(config: dict[str, Any], decoder: Decoder) -> list[frozenset[str]]:
    """Of each layer, what the quantisation's lists say of its modules."""
    stack = decoder.prefixes[0].split(".")[-2]
    mentions: list[set[str]] = [set() for _ in range(decoder.num_hidden_layers)]
    for text in _texts([value for key, value in config.items() if key in KEYS]):
        if (place := _layer_in(text, stack)) is not None and int(place.group(1)) < len(mentions):
            mentions[int(place.group(1))].add(_moved(text, place, 0))
    return [frozenset(each) for each in mentions]


def _remapped(value: Any, stack: str, plan: LayerPlan) -> Any:
    if isinstance(value, dict):
        for key in value:
            _refuse_unless_a_name(str(key), stack)
            if _layer_in(str(key), stack):
                raise PlanError(f"quantization_config: settings for {key} found; grow the original")
        return {key: _remapped(inner, stack, plan) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    names: list[Any] = []
    for item in value:
        place = _layer_in(item, stack) if isinstance(item, str) else None
        if isinstance(item, str):
            _refuse_unless_a_name(item, stack)
        if place is None:
            names.append(_remapped(item, stack, plan))
        else:
            positions = [k for k, source in enumerate(plan.sources) if source == int(place.group(1))]
            names += [_moved(item, place, position) for position in positions]
    return names


def _layer_in(text: str, stack: str) -> re.Match[str] | None:
    """Where a module's name has the number of a layer."""
    return re.search(rf"(?:^|\.){re.escape(stack)}\.(\d+)(?=\.|$)", text)


def _moved(text: str, place: re.Match[str], position: int) -> str:
    return f"{text[: place.start(1)]}{position}{text[place.end(1) :]}"


def _refuse_unless_a_name(text: str, stack: str) -> None:
    """A regular expression may say something of single layers that cannot be carried over."""
    is_pattern = text.startswith(("re:", "+:", "-:")) or re.search(r"[\\*+?|()\[\]^$]", text) is not None
    if is_pattern and stack in text and re.search(r"\d", text):
        raise PlanError(f"quantization_config: {text!r} found, which may mean single layers; grow the original")


def _texts(values: Sequence[Any]) -> list[str]:
    texts: list[str] = []
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list | dict):
            waiting += value.values() if isinstance(value, dict) else value
    return texts
