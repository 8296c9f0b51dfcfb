"""Lists of modules in a quantisation's settings (those that are not quantised), carried over to the grown stack."""

import re
from collections.abc import Sequence
from typing import Any

from solar.errors import PlanError
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import Decoder
from solar.weights.quantised import KEYS

_OTHER_TOWERS = re.compile("vision|visual|image|audio|speech")
"""Words in the names of stacks that are not the decoder, but may call their layers the same."""


def remap_quantisation(config: dict[str, Any], decoder: Decoder, plan: LayerPlan) -> dict[str, Any]:
    """A config.json whose quantisation, at any depth, names the grown model's layers.

    Raises `PlanError` for a rule that may mention single layers in another way than by a module's name.
    """
    if plan.is_identity:
        return config
    stack = _stack(decoder)
    remapped: dict[str, Any] = {}
    for key, value in config.items():
        if key in KEYS:
            remapped[key] = _remapped(value, stack, plan)
        else:
            remapped[key] = remap_quantisation(value, decoder, plan) if isinstance(value, dict) else value
    return remapped


def layer_mentions(config: dict[str, Any], decoder: Decoder) -> list[frozenset[str]]:
    """For each layer, the modules of that layer that the quantisation's lists name."""
    stack = _stack(decoder)
    mentions: list[set[str]] = [set() for _ in range(decoder.num_hidden_layers)]
    for text in _texts(_quantisations(config)):
        if (match := _layer_number(text, stack)) is not None and int(match.group(1)) < len(mentions):
            mentions[int(match.group(1))].add(_renumbered(text, match, 0))
    return [frozenset(names) for names in mentions]


def _stack(decoder: Decoder) -> str:
    """The word before a layer's number in the names of modules: `layers`."""
    return decoder.prefixes[0].split(".")[-2]


def _quantisations(config: dict[str, Any]) -> list[Any]:
    """The settings of a quantisation, at any depth of a config.json."""
    settings: list[Any] = []
    for key, value in config.items():
        if key in KEYS:
            settings.append(value)
        elif isinstance(value, dict):
            settings += _quantisations(value)
    return settings


def _remapped(value: Any, stack: str, plan: LayerPlan) -> Any:
    if isinstance(value, dict):
        for key in value:
            _refuse_pattern(key, stack)
            if _layer_number(key, stack):
                raise PlanError(f"quantization_config: settings for {key} found; grow the original")
        return {key: _remapped(inner, stack, plan) for key, inner in value.items()}
    if isinstance(value, list):
        return [name for item in value for name in _remapped_item(item, stack, plan)]
    return value


def _remapped_item(item: Any, stack: str, plan: LayerPlan) -> list[Any]:
    """A module's name becomes one name for each position at which its layer runs."""
    if not isinstance(item, str):
        return [_remapped(item, stack, plan)]
    _refuse_pattern(item, stack)
    match = _layer_number(item, stack)
    if match is None:
        return [item]
    layer = int(match.group(1))
    return [_renumbered(item, match, position) for position, source in enumerate(plan.sources) if source == layer]


def _layer_number(text: str, stack: str) -> re.Match[str] | None:
    """Where a module's name has the number of a decoder layer."""
    match = re.search(rf"(?:^|\.){re.escape(stack)}\.(\d+)(?=\.|$)", text)
    return None if match is None or _OTHER_TOWERS.search(text[: match.start(1)]) else match


def _renumbered(text: str, match: re.Match[str], position: int) -> str:
    return f"{text[: match.start(1)]}{position}{text[match.end(1) :]}"


def _refuse_pattern(text: str, stack: str) -> None:
    """A regular expression with a number may mean single layers, and cannot be rewritten for others."""
    is_pattern = text.startswith(("re:", "+:", "-:")) or re.search(r"[\\*+?|()\[\]^$]", text) is not None
    if is_pattern and stack in text and re.search(r"\d", text) and not _OTHER_TOWERS.search(text):
        raise PlanError(f"quantization_config: {text!r} found, which may mean single layers; grow the original")


def _texts(values: Sequence[Any]) -> list[str]:
    """All texts in lists and objects."""
    texts: list[str] = []
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list | dict):
            waiting += value.values() if isinstance(value, dict) else value
    return texts
