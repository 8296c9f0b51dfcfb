"""Find the tensors through which a layer writes to the residual stream, in whatever way the family names them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solar.errors import PlanError
from solar.growth.plans import LayerPlan
from solar.growth.process import ask
from solar.growth.remap.decoder import Decoder, split_layer
from solar.growth.remap.layer_config import remap
from solar.growth.remap.transformers_config import DecoderConfigs
from solar.weights.folder import ModelFolder

_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_FEW_EXPERTS = 16
_FEW_TOKENS = 64


@dataclass(frozen=True)
class Residual:
    """How a model's layers write to the stream."""

    writers: frozenset[str]
    """Tensor names, of all layers: with these at zero, a layer returns its input."""
    linear: bool
    """Whether what a layer writes follows their scale; not where a norm comes after them."""


def find_writers(base: ModelFolder, decoder: Decoder, configs: DecoderConfigs) -> Residual:
    """Raises `PlanError` where zero weights would not silence a layer, or are not in the files.

    `transformers` builds a small sibling, with a layer of each kind, few experts and few tokens, and traces it.
    """
    example = _examples(decoder, configs.layer_kinds(decoder.num_hidden_layers))
    own, examples = _sibling(configs.base, decoder, sorted(set(example)))
    request = {
        "config": _placed(base.config, decoder.config_path, own),
        "path": decoder.config_path,
        "num_hidden_layers": len(examples),
    }
    traced = ask("solar.diagnosis.residual_trace", request, PlanError)
    rests: dict[int, set[str]] = {}
    for name in traced["writers"]:
        _, position, rest = split_layer(name) or ("", 0, "")
        rests.setdefault(examples[position], set()).add(_any_expert(rest))
    writers: set[str] = set()
    for layer, names in enumerate(decoder.layers):
        missing = set(expected := rests.get(example[layer], set()))
        for name in names:
            if (rest := _any_expert((split_layer(name) or ("", 0, ""))[2])) in expected:
                writers.add(name)
                missing.discard(rest)
        if missing or not expected:
            what = min(missing, default="no tensor that writes to the residual stream")
            raise PlanError(f"{decoder.prefixes[0]}{layer}: {what} expected, not found in the files; choose init copy")
    return Residual(frozenset(writers), traced["linear"])


def _examples(decoder: Decoder, kinds: Sequence[object]) -> list[int]:
    """For each layer, the first of its kind: same configuration, same tensors."""
    first: dict[tuple[object, ...], int] = {}
    return [
        first.setdefault((kind, frozenset(decoder.rename(name, 0) for name in names)), layer)
        for layer, (kind, names) in enumerate(zip(kinds, decoder.layers, strict=True))
    ]


def _sibling(spelled: dict[str, Any], decoder: Decoder, examples: list[int]) -> tuple[dict[str, Any], list[int]]:
    """A small configuration, and the base layer of each of its layers; all layers if no smaller one exists."""
    try:
        own = remap(spelled, LayerPlan(decoder.num_hidden_layers, tuple(examples)))
    except PlanError:
        own, examples = spelled, [*range(decoder.num_hidden_layers)]
    few = {key: min(own[key], _FEW_EXPERTS) for key in _EXPERT_KEYS if isinstance(own.get(key), int)}
    tokens = {key: 0 for key in ("pad_token_id", "bos_token_id", "eos_token_id") if own.get(key) is not None}
    return {**own, **few, **tokens, "vocab_size": _FEW_TOKENS}, examples


def _placed(config: dict[str, Any], path: tuple[str, ...], own: dict[str, Any]) -> dict[str, Any]:
    return own if not path else {**config, path[0]: _placed(config[path[0]], path[1:], own)}


def _any_expert(rest: str) -> str:
    """
    >>> _any_expert("mlp.experts.3.down_proj.weight")
    'mlp.experts.*.down_proj.weight'
    """
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", rest)
