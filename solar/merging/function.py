"""What a config.json says of the function its tensors compute; the rest (caches, dropout, names) does not matter."""

from typing import Any

FUNCTION = (
    "model_type",
    "num_hidden_layers",
    "n_layer",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "num_experts_per_tok",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "layer_types",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "partial_rotary_factor",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)
"""Keys of config.json, by all their families' names, that change what the same tensors compute."""


def function_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says of the function, of its language model where that is one part of several.

    transformers 4 wrote rotary embeddings as `rope_theta` and `rope_scaling`, version 5 writes `rope_parameters`.

    >>> function_of({"rope_theta": 1e6, "rope_scaling": None})
    {'rope_theta': 1000000.0, 'rope_type': 'default'}
    >>> function_of({"n_head": 8, "rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0}})
    {'n_head': 8, 'rope_theta': 1000000.0, 'rope_type': 'linear', 'factor': 2.0}
    """
    config = config.get("text_config", config)
    said = {key: config[key] for key in FUNCTION if config.get(key) is not None}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "rope_theta" in config and "rope_theta" not in rope:
        rope = {"rope_theta": config["rope_theta"], **rope}
    if rope and all(isinstance(value, dict) for value in rope.values()):
        return {**said, "rope_parameters": rope}  # one set of values for each type of layer
    if rope:
        rope = {key: value for key, value in rope.items() if value is not None}
        said |= {**rope, "rope_type": rope.pop("rope_type", rope.pop("type", "default"))}
    return said
