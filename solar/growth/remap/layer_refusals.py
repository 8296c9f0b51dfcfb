"""Refuse models whose layers are tied to each other or to their depth: moving a layer would change its function."""

from collections.abc import Iterator
from typing import Any

from solar.errors import PlanError
from solar.growth.plans import LayerPlan

SHARED_ACROSS_LAYERS = {
    "num_kv_shared_layers": "upper layers read the keys and values of lower ones",
    "kv_source_layers": "layers read the keys and values of other layers",
    "hidden_size_per_layer_input": "every token has an embedding of its own for each layer",
    "num_mem_blocks": "layers far apart share their weights",
    "num_hidden_groups": "layers share their weights",
    "ple_layer_ids": "every token has an embedding of its own for some layers",
    "n_layers_per_attn_res_block": "blocks of layers read each other's outputs",
    "cla_share_factor": "neighbouring layers share keys and values",
}
"""Keys that, when set, tie layers to each other or to weights outside of them."""

DEPTH_IN_CODE = {
    "diffllama": "its attention depends on how deep a layer is",
    "minimax": "the decay of its linear attention depends on how deep a layer is",
    "bailing_hybrid": "the decay of its linear attention depends on how deep a layer is",
    "beam": "its residual connections are scaled by how deep a layer is",
    "zaya": "the router of a layer reads that of the layer below",
    "zamba": "layers far apart share their weights",
    "zamba2": "layers far apart share their weights",
    "albert": "layers share their weights",
    "hrm_text": "its layers run in cycles",
}
"""Families whose code, not configuration, makes a layer depend on its place."""


def refuse_what_cannot_be_right(config: dict[str, Any]) -> None:
    """Raises `PlanError`, naming the key, for a configuration that no plan can be right for."""
    model_type = config.get("model_type", "")
    if model_type in DEPTH_IN_CODE:
        raise PlanError(f"model_type: {model_type} found, and {DEPTH_IN_CODE[model_type]}; it cannot be grown in depth")
    for key, why in SHARED_ACROSS_LAYERS.items():
        if config.get(key) not in (None, 0, [], 1 if key in ("num_hidden_groups", "cla_share_factor") else None):
            raise PlanError(f"{key}: {config[key]} found: {why}; such a model cannot be grown in depth")
    if "shared" in (config.get("indexer_types") or []):
        raise PlanError(
            "indexer_types: shared found: layers read the index of other layers; it cannot be grown in depth"
        )
    for key in ("scale_attn_by_inverse_layer_idx", "scale_attention_by_inverse_layer_idx"):
        if config.get(key):
            raise PlanError(f"{key}: true found: attention depends on how deep a layer is; it cannot be grown in depth")


def refuse_moved_vision_inputs(config: dict[str, Any], plan: LayerPlan) -> None:
    """Raises `PlanError` if pictures enter the decoder in layers that the plan moves. `config`: all of config.json."""
    for name, setting, count in _vision_inputs(config):
        if plan.sources[:count] != tuple(range(count)):
            raise PlanError(
                f"{name}: {setting} found: pictures enter in the first {count} layers, which the plan does "
                f"not leave where they are; choose a plan that begins with layers 0 to {count - 1}"
            )


def _vision_inputs(config: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, int]]:
    """Keys that lead outputs of the vision tower into the decoder's first layers: name, value, how many layers."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _vision_inputs(value, f"{path}{key}.")
        elif key == "deepstack_visual_indexes" and value:  # one of its layers for each of the decoder's first
            yield f"{path}{key}", value, len(value)
        elif key == "deepstack_layer_map" and value:  # pairs of a layer of the tower and one of the decoder
            yield f"{path}{key}", value, 1 + max(into for _, into in value)
