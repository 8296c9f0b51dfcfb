"""Numbers in a configuration that stand for a pattern over the layers, and what a plan makes of each.

A pattern is kept where the grown layers still follow it, spelled out where the configuration has a list for that, and
refused by name where it has none.
"""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

from solar.errors import PlanError
from solar.growth.plans import LayerPlan

Configuration = dict[str, Any]
Rule = Callable[[Configuration, LayerPlan], Configuration]
"""Changes a plan makes in a decoder's configuration. Raises `PlanError` where it cannot be right."""
Pattern = Callable[[Configuration, int], list[bool] | None]
"""What a configuration's pattern says of each layer at a depth; None if it has no such pattern."""


def _prefix(config: Configuration, n: int, key: str, unless: str) -> list[bool] | None:
    """Layers below a number differ from those above."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or config.get(unless):
        return None
    return [layer < value for layer in range(n)]


def _remap_prefix(key: str, unless: str) -> Rule:
    def rule(config: Configuration, plan: LayerPlan) -> Configuration:
        if key == "max_window_layers" and not config.get("use_sliding_window"):
            return {}
        below = _prefix(config, plan.base_layers, key, unless)
        if below is None or not any(below):
            return {}
        grown = [below[source] for source in plan.sources]
        count = sum(grown)
        if grown != [layer < count for layer in range(len(grown))]:
            raise PlanError(
                f"{key}: {config[key]} found, but layer {grown.index(True, grown.index(False))} would be such a layer "
                f"above others; choose a plan that runs the lowest {config[key]} layers before all others"
            )
        return {key: max(count, config[key]) if all(below) else count}

    return rule


def _period(config: Configuration, n: int, key: str, offset: str | None, unless: str | None) -> list[bool] | None:
    """Every n-th layer differs: `layer % period == offset`; without an offset, the last layer of each period."""
    value = config.get(key)
    if value is None or (unless is not None and config.get(unless) is not None):
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return None
    place = config.get(offset, 0) if offset is not None else value - 1
    return [layer % value == place for layer in range(n)]


def _remap_period(key: str, offset: str | None, unless: str | None) -> Rule:
    def rule(config: Configuration, plan: LayerPlan) -> Configuration:
        base = _period(config, plan.base_layers, key, offset, unless)
        grown = _period(config, plan.num_hidden_layers, key, offset, unless)
        if base is not None and [base[source] for source in plan.sources] != grown:
            raise PlanError(
                f"{key}: {config[key]} found, and the grown layers would not repeat every {config[key]}; choose a plan "
                f"in which every base layer keeps its place modulo {config[key]} (dus: p + q = n modulo {config[key]})"
            )
        return {}

    return rule


def _sparse_step(config: Configuration, n: int) -> list[bool] | None:
    """Every `decoder_sparse_step`-th layer has experts, those in `mlp_only_layers` never."""
    step = config.get("decoder_sparse_step")
    if not isinstance(step, int) or step < 1:
        return None
    return [(layer + 1) % step == 0 for layer in range(n)]


def _remap_sparse_step(config: Configuration, plan: LayerPlan) -> Configuration:
    by_step = _sparse_step(config, plan.base_layers)
    if by_step is None:
        return {}
    dense = [k for k, source in enumerate(plan.sources) if not by_step[source]]
    return {"decoder_sparse_step": 1, "mlp_only_layers": sorted({*dense, *(config.get("mlp_only_layers") or [])})}


def _moe_range(config: Configuration, n: int) -> list[bool] | None:
    """Layers from `moe_layer_start_index` to `moe_layer_end_index` have experts, every `moe_layer_interval`-th."""
    start, end = config.get("moe_layer_start_index"), config.get("moe_layer_end_index")
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    interval = config.get("moe_layer_interval") or 1
    return [start <= layer <= (end if end >= 0 else n - 1) and (layer + 1) % interval == 0 for layer in range(n)]


def _remap_moe_range(config: Configuration, plan: LayerPlan) -> Configuration:
    base = _moe_range(config, plan.base_layers)
    if base is None:
        return {}
    sparse = [k for k, source in enumerate(plan.sources) if base[source]]
    changes = {"moe_layer_start_index": min(sparse, default=0), "moe_layer_end_index": max(sparse, default=0)}
    if _moe_range({**config, **changes}, plan.num_hidden_layers) != [base[source] for source in plan.sources]:
        raise PlanError(
            f"moe_layer_start_index: {config['moe_layer_start_index']} found, but the plan mixes layers with "
            f"and without experts; choose a plan that keeps them in one range"
        )
    return changes


def _remap_attention_types(config: Configuration, plan: LayerPlan) -> Configuration:
    """GPT-Neo's `[[types, times], ...]`, which its code spells out into a type a layer."""
    types = config.get("attention_types")
    if not types:
        return {}
    spelled = [kind for kinds, times in types for _ in range(times) for kind in kinds]
    if len(spelled) != plan.base_layers:
        raise PlanError(
            f"attention_types: {len(spelled)} layers spelled out, expected {plan.base_layers}; mend config.json"
        )
    grown = [spelled[source] for source in plan.sources]
    return {"attention_types": [[grown, 1]], "attention_layers": grown}


def _remap_block_types(config: Configuration, plan: LayerPlan) -> Configuration:
    """A cycle of block types, spelled out: a cycle as long as the model is still a cycle."""
    cycle = config.get("block_types")
    if not isinstance(cycle, list) or not cycle:
        return {}
    return {"block_types": [cycle[source % len(cycle)] for source in plan.sources]}


def _remap_pattern_text(config: Configuration, plan: LayerPlan) -> Configuration:
    """A letter a layer."""
    pattern = config.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or len(pattern) != plan.base_layers:
        return {}
    return {"hybrid_override_pattern": "".join(pattern[source] for source in plan.sources)}


def _keep_residual_scale(config: Configuration, plan: LayerPlan) -> Configuration:
    """Branches are scaled by `scale_depth / sqrt(layers)`: scale_depth rises so that the quotient stays."""
    scale = config.get("scale_depth")
    return {} if scale is None else {"scale_depth": scale * sqrt(plan.num_hidden_layers / plan.base_layers)}


_PREFIXES = [
    ("first_k_dense_replace", "mlp_layer_types"),
    ("num_dense_layers", "mlp_layer_types"),
    ("max_window_layers", "layer_types"),
]
_PERIODS = [
    ("attn_layer_period", "attn_layer_offset", None),
    ("expert_layer_period", "expert_layer_offset", None),
    ("moe_layer_freq", None, "mlp_layer_types"),
    ("interleave_moe_layer_step", None, "moe_layers"),
    ("no_rope_layer_interval", None, "no_rope_layers"),
    ("sliding_window_pattern", None, "layer_types"),
    ("_sliding_window_pattern", None, "layer_types"),
    ("full_attention_interval", None, "layer_types"),
    ("global_attn_every_n_layers", None, "layer_types"),
    ("layer_group_size", None, "layer_types"),
    ("prefix_dense_sliding_window_pattern", None, "layer_types"),
]
KNOWN_KEYS = {
    *(key for key, _ in _PREFIXES),
    *(key for period in _PERIODS for key in period if key is not None),
    *("decoder_sparse_step", "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"),
    *("attention_types", "attention_layers", "block_types", "hybrid_override_pattern", "layers_block_type"),
}
PATTERNS: list[Pattern] = [
    *(partial(_prefix, key=key, unless=unless) for key, unless in _PREFIXES),
    *(partial(_period, key=key, offset=offset, unless=unless) for key, offset, unless in _PERIODS),
    _sparse_step,
    _moe_range,
]
RULES: list[Rule] = [
    *(_remap_prefix(key, unless) for key, unless in _PREFIXES),
    *(_remap_period(key, offset, unless) for key, offset, unless in _PERIODS),
    _remap_sparse_step,
    _remap_moe_range,
    _remap_attention_types,
    _remap_block_types,
    _remap_pattern_text,
    _keep_residual_scale,
]
