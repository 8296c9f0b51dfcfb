"""The Llama decoder on disk: its `config.json`, and the name and shape of every tensor."""

from typing import Any

from solar.config.model import ArchitectureConfig

LLAMA_SHAPED = ("llama", "mistral")
"""Values of `model_type` whose checkpoints have exactly the tensors of `tensor_shapes`."""

_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
    "rms_norm_eps",
)


def model_config(architecture: ArchitectureConfig, initializer_range: float, dtype: str) -> dict[str, Any]:
    """The `config.json` of a Llama; the caller adds the tokenizer's token ids."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: getattr(architecture, name) for name in _SIZES},
        "head_dim": architecture.hidden_size // architecture.num_attention_heads,
        # Both spellings: transformers 5 reads `rope_parameters`, older versions and other tools `rope_theta`.
        "rope_theta": architecture.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": architecture.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": initializer_range,
        "use_cache": True,
        "dtype": dtype,
    }


def sizes(config: dict[str, Any]) -> ArchitectureConfig:
    """The sizes in a `config.json`. A missing size has `transformers`' default, or is None."""
    values: dict[str, Any] = {name: config.get(name) for name in _SIZES}
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    values["tie_word_embeddings"] = bool(values["tie_word_embeddings"])
    rope = config.get("rope_parameters")
    rope = rope if isinstance(rope, dict) else {}
    return ArchitectureConfig(**values, rope_theta=rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor in a checkpoint, in the order of the forward pass."""
    size = sizes(config)
    hidden, inner = size.hidden_size, size.intermediate_size
    head = config.get("head_dim") or hidden // size.num_attention_heads
    queries, keys = head * size.num_attention_heads, head * size.num_key_value_heads
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    biased = {"self_attn": config.get("attention_bias"), "mlp": config.get("mlp_bias")}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (size.vocab_size, hidden)}
    for index in range(size.num_hidden_layers):
        for name, shape in layer.items():
            shapes[f"model.layers.{index}.{name}.weight"] = shape
            if biased.get(name.partition(".")[0]):
                shapes[f"model.layers.{index}.{name}.bias"] = shape[:1]
    shapes["model.norm.weight"] = (hidden,)
    if not size.tie_word_embeddings:
        shapes["lm_head.weight"] = (size.vocab_size, hidden)
    return shapes
