"""What a config.json says of the function that its tensors compute.

Every key counts except those known to leave the function as it is: a key that this module does not know is compared.
"""

import re
from typing import Any

HARMLESS = {
    *("_name_or_path", "architectures", "transformers_version", "unsloth_version", "dtype", "torch_dtype", "solar"),
    *("auto_map", "use_cache", "initializer_range", "initializer_factor", "init_std", "pretraining_tp", "torchscript"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id"),
    *("gradient_checkpointing", "problem_type", "id2label", "label2id", "num_labels", "task_specific_params"),
    *("tokenizer_class", "prefix", "pruned_heads", "use_bfloat16", "tf_legacy_loss", "finetuning_task", "classifier"),
    *(
        "router_aux_loss_coef",
        "aux_loss_alpha",
        "aux_loss_coef",
        "seq_aux",
        "router_z_loss_coef",
        "router_jitter_noise",
    ),
    *("tie_word_embeddings", "tie_encoder_decoder", "cache_implementation", "keys_to_ignore_at_inference"),
    *("max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
    *(
        "forced_bos_token_id",
        "forced_eos_token_id",
        "suppress_tokens",
        "begin_suppress_tokens",
        "remove_invalid_values",
    ),
    *("exponential_decay_length_penalty", "chunk_size_feed_forward", "output_attentions", "output_hidden_states"),
    *("output_scores", "output_router_logits", "return_dict", "return_dict_in_generate", "use_flash_attn"),
}
"""Keys for training, generation and book-keeping, or (tied embeddings) compared elsewhere."""
HARMLESS_NAMES = re.compile(r"drop|_implementation")
"""Dropout acts in training alone; an implementation computes the same numbers."""
DERIVED = {"head_dim", "num_key_value_heads", "n_inner", "layer_types", "attention_types", "intermediate_size"}
"""Keys whose null means a value that is derived from other keys, or from the shapes of tensors."""
NEUTRAL = {
    "clip_qkv": None,
    **dict.fromkeys(["residual_multiplier", "attention_multiplier", "embedding_multiplier", "logits_scaling"], 1.0),
}
"""Keys that have this value in every family whose configuration omits them."""


def differing_key(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    """The first key by which two configurations describe other functions. A key that one lacks says nothing.

    >>> differing_key({"sliding_window": 16}, {"sliding_window": None}), differing_key({"head_dim": 8}, {})
    ('sliding_window', None)
    """
    ours, theirs = function_of(first), function_of(second)
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        left, right = (side.get(key, NEUTRAL.get(key, _ABSENT)) for side in (ours, theirs))
        unknown = _ABSENT in (left, right) or (key in DERIVED and None in (left, right))
        if not unknown and left != right:
            return key
    return None


class _Absent:
    """Equal to nothing else."""


_ABSENT = _Absent()


def function_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says of the function, with the keys of its parts as dotted paths.

    A language model's part stands among the others' keys. transformers 4 wrote rotary embeddings as `rope_theta` and
    `rope_scaling`, version 5 writes `rope_parameters`.

    >>> function_of({"rope_theta": 1e6, "rope_scaling": None, "use_cache": True})
    {'rope_theta': 1000000.0, 'rope_type': 'default'}
    >>> function_of({"n_head": 8, "rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0}})
    {'n_head': 8, 'rope_theta': 1000000.0, 'rope_type': 'linear', 'factor': 2.0}
    >>> function_of({"text_config": {"n_head": 8}, "vision_config": {"n_head": 2}})
    {'vision_config.n_head': 2, 'n_head': 8}
    """
    config = {key: value for key, value in config.items() if key not in HARMLESS and not HARMLESS_NAMES.search(key)}
    text = config.pop("text_config", None)
    rope = _rope(config)
    if config.get("use_sliding_window") is False:
        config = {key: value for key, value in config.items() if key not in ("sliding_window", "max_window_layers")}
    if rope.get("rope_type") in (None, "default"):
        config.pop("max_position_embeddings", None)  # a limit that changes no number
    function: dict[str, Any] = {}
    for key, value in config.items():
        if key in ("rope_theta", "rope_scaling", "rope_parameters"):
            continue
        if isinstance(value, dict):
            function |= {f"{key}.{inner}": meaning for inner, meaning in function_of(value).items()}
        else:
            function[key] = value
    return {**function, **rope, **(function_of(text) if isinstance(text, dict) else {})}


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary embeddings as version 5 writes them; `rope_parameters` alone where each type of layer has its own."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "rope_theta" in config and "rope_theta" not in rope:
        rope = {"rope_theta": config["rope_theta"], **rope}
    if rope and all(isinstance(value, dict) for value in rope.values()):
        return {"rope_parameters": rope}
    if not rope:
        return {}
    rope = {key: value for key, value in rope.items() if value is not None}
    return {**rope, "rope_type": rope.pop("rope_type", rope.pop("type", "default"))}
