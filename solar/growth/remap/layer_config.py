"""Carry what a configuration says of single layers over to the grown model.

It can say so in four forms: a value a layer (`layer_types`), a list of layer numbers (`mlp_only_layers`), settings by
layer number (`per_layer_config`), and a number that stands for a pattern (`first_k_dense_replace`). The first three are
rewritten for any plan, the fourth is for `layer_patterns`. The keys are the vocabulary of `transformers`; no family is
named.
"""

import re
from collections.abc import Sequence
from typing import Any

from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import LAYER_COUNT_KEYS
from solar.growth.remap.layer_patterns import KNOWN_KEYS, PATTERNS, RULES
from solar.growth.remap.layer_refusals import SHARED_ACROSS_LAYERS, refuse_what_cannot_be_right

Configuration = dict[str, Any]

NOT_PER_LAYER = {
    *("architectures", "eos_token_id", "bos_token_id", "pad_token_id", "mrope_section", "time_step_limit"),
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "languages", "keys_to_ignore_at_inference"),
    "block_types",  # a cycle, which may happen to be as long as the model
    *("mtp_layers_block_type", "mtp_layer_types", "mtp_mlp_layer_types", "mtp_local_layer_ids"),
}
"""Lists that may have as many items as there are layers without being about layers."""

INDEX_LISTS = {
    *("mlp_only_layers", "full_attn_idxs", "attn_layer_indices", "cross_attention_layers", "moe_layers"),
    *("hybrid_layer_ids", "local_layer_ids", "sparse_layers", "dense_layers", "global_attn_layers", "full_attn_layers"),
}
"""Lists of layer numbers."""

UNKNOWN_PATTERN = re.compile(
    r"layers?_?(types?_)?.*(interval|period|freq|step|every|offset|start|end|index|idx|pattern|replace)"
    r"|(every|interval|period|freq).*layer|every_n|first_k|(?<!hidden)_layers$"
)
HARMLESS = {
    *("num_nextn_predict_layers", "num_mtp_layers", "vision_feature_layer", "vision_feature_layers", "tie_last_layers"),
    *("num_encoder_layers", "encoder_layers", "num_decoder_layers", "decoder_layers"),
}


def remap(config: Configuration, plan: LayerPlan) -> Configuration:
    """A decoder's configuration for the grown model.

    >>> base = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    >>> remap(base, LayerPlan(2, (0, 1, 1)))["layer_types"]
    ['sliding_attention', 'full_attention', 'full_attention']
    """
    if plan.is_identity:
        return dict(config)
    refuse_what_cannot_be_right(config)
    changes: Configuration = {
        key: plan.num_hidden_layers for key in (*LAYER_COUNT_KEYS, "num_blocks") if config.get(key) == plan.base_layers
    }
    for key, value in config.items():
        if is_index_list(key, value, plan.base_layers):
            changes[key] = [k for k, source in enumerate(plan.sources) if source in value]
        elif is_per_layer(key, value, plan.base_layers):
            changes[key] = [value[source] for source in plan.sources]
        elif is_by_layer(value, plan.base_layers):
            changes[key] = {str(k): value[str(s)] for k, s in enumerate(plan.sources) if str(s) in value}
    for rule in RULES:
        changes |= rule({**config, **_explicit(changes)}, plan)
    return {**config, **changes}


def is_per_layer(key: str, value: Any, num_hidden_layers: int) -> bool:
    """Whether a value of the configuration is a list with an item a layer."""
    return isinstance(value, list) and len(value) == num_hidden_layers and key not in NOT_PER_LAYER


def is_index_list(key: str, value: Any, num_hidden_layers: int) -> bool:
    """Whether a value of the configuration is a list of layer numbers."""
    if not isinstance(value, list) or key in NOT_PER_LAYER:
        return False
    numbers = all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < num_hidden_layers for item in value
    )
    if not numbers or len(set(value)) != len(value):
        return False
    looks_so = re.search(r"layer.*(_ids|_indices|_idxs)$|attn_(idxs|indices)$", key) is not None
    return key in INDEX_LISTS or (looks_so and len(value) < num_hidden_layers)


def is_by_layer(value: Any, num_hidden_layers: int) -> bool:
    """Whether a value of the configuration gives settings by layer number."""
    numbers = {str(layer) for layer in range(num_hidden_layers)}
    return (
        isinstance(value, dict)
        and bool(value)
        and value.keys() <= numbers
        and all(isinstance(settings, dict) for settings in value.values())
    )


def unknown_patterns(config: Configuration) -> list[str]:
    """Keys whose names suggest a rule for single layers, but which no rule here knows."""
    return sorted(
        key
        for key, value in config.items()
        if UNKNOWN_PATTERN.search(key)
        and isinstance(value, int | str | list | dict)
        and not isinstance(value, bool)
        and value not in ([], {}, "", 0)
        and key
        not in KNOWN_KEYS | set(SHARED_ACROSS_LAYERS) | INDEX_LISTS | NOT_PER_LAYER | HARMLESS | set(LAYER_COUNT_KEYS)
        and not isinstance(value, list)
    )


def layer_kinds(config: Configuration, num_hidden_layers: int) -> list[tuple[Any, ...]]:
    """What the configuration says of each layer. Layers of the same kind must have the same tensors."""
    columns: list[Sequence[Any]] = []
    for key, value in config.items():
        if is_index_list(key, value, num_hidden_layers):
            columns.append([layer in value for layer in range(num_hidden_layers)])
        elif is_per_layer(key, value, num_hidden_layers):
            columns.append([repr(item) for item in value])
        elif is_by_layer(value, num_hidden_layers):
            columns.append([repr(value.get(str(layer))) for layer in range(num_hidden_layers)])
    for pattern in PATTERNS:
        if (column := pattern(config, num_hidden_layers)) is not None:
            columns.append(column)
    return [tuple(column[layer] for column in columns) for layer in range(num_hidden_layers)]


def _explicit(changes: Configuration) -> Configuration:
    """What overrides a pattern in the grown configuration: the rules must not see the new depth."""
    return {key: value for key, value in changes.items() if key not in LAYER_COUNT_KEYS}
