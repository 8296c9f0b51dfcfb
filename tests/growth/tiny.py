"""Tiny random models of many families: eight layers, 32 wide, 96 tokens, windows of 4 tokens."""

from pathlib import Path
from typing import Any

import torch
import transformers

LAYERS = 8

_BASE: dict[str, Any] = {
    **{"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
_GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "pad_token_id": 0}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1}
_LATENT = {
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8},
    **{"num_key_value_heads": 4},
}
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
_LINEAR = {
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "head_dim": 8,
}


def _base(*parts: dict[str, Any], **own: Any) -> dict[str, Any]:
    merged = dict(_BASE)
    for part in (*parts, own):
        merged |= part
    return {key: value for key, value in merged.items() if value is not ...}


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _base()),
    "llama_tied": ("llama", _base(tie_word_embeddings=True)),
    "llama_bias": ("llama", _base(attention_bias=True, mlp_bias=True)),
    "mistral": ("mistral", _base(sliding_window=4)),
    "qwen2": ("qwen2", _base()),
    "qwen2_window": ("qwen2", _base(use_sliding_window=True, sliding_window=4, max_window_layers=3)),
    "qwen3": ("qwen3", _base(head_dim=8)),
    "gemma": ("gemma", _base(head_dim=8)),
    "gemma2": ("gemma2", _base(head_dim=8, sliding_window=4, query_pre_attn_scalar=8)),
    "gemma3_text": ("gemma3_text", _base(head_dim=8, sliding_window=4, query_pre_attn_scalar=8)),
    "vaultgemma": ("vaultgemma", _base(head_dim=8, sliding_window=4, query_pre_attn_scalar=8)),
    "gemma4_text": (
        "gemma4_text",
        _base(head_dim=8, global_head_dim=16, sliding_window=4, hidden_size_per_layer_input=0, num_kv_shared_layers=0),
    ),
    "phi": ("phi", _base(num_key_value_heads=4)),
    "phi3": ("phi3", _base()),
    "phimoe": ("phimoe", _base(num_local_experts=4)),
    "gpt2": ("gpt2", _GPT2),
    "gpt_bigcode": ("gpt_bigcode", _GPT2),
    "gptj": ("gptj", {**_GPT2, "rotary_dim": 4}),
    "codegen": ("codegen", {**_GPT2, "rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {
            **{"vocab_size": 96, "hidden_size": 32, "num_layers": LAYERS, "num_heads": 4, "window_size": 4},
            **{"attention_types": [[["global", "local"], 4]], "max_position_embeddings": 64},
        },
    ),
    "gpt_neox": ("gpt_neox", _base(num_key_value_heads=...)),
    "opt": ("opt", _base(num_key_value_heads=..., intermediate_size=..., ffn_dim=48, word_embed_proj_dim=32)),
    "falcon": ("falcon", _base(new_decoder_architecture=True, num_kv_heads=2, num_key_value_heads=...)),
    "falcon_alibi": ("falcon", _base(alibi=True, parallel_attn=False, bias=True, num_key_value_heads=...)),
    "bloom": ("bloom", {"vocab_size": 96, "hidden_size": 32, "n_layer": LAYERS, "n_head": 4}),
    "mpt": ("mpt", {"vocab_size": 96, "d_model": 32, "n_layers": LAYERS, "n_heads": 4, "max_seq_len": 64}),
    "stablelm": ("stablelm", _base(use_qkv_bias=True)),
    "olmo": ("olmo", _base()),
    "olmo2": ("olmo2", _base()),
    "olmo3": ("olmo3", _base(sliding_window=4)),
    "olmoe": ("olmoe", _base(num_experts=4, num_experts_per_tok=2)),
    "flex_olmo": ("flex_olmo", _base(num_experts=4, num_experts_per_tok=2)),
    "starcoder2": ("starcoder2", _base(sliding_window=4)),
    "granite": ("granite", _base(residual_multiplier=0.5, embedding_multiplier=2.0)),
    "granitemoe": ("granitemoe", _base(num_local_experts=4, num_experts_per_tok=2)),
    "cohere": ("cohere", _base()),
    "cohere2": ("cohere2", _base(sliding_window=4, sliding_window_pattern=4)),
    "smollm3": ("smollm3", _base(sliding_window=4)),
    "mixtral": ("mixtral", _base(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2_moe": (
        "qwen2_moe",
        _base(_EXPERTS, shared_expert_intermediate_size=16, decoder_sparse_step=2, mlp_only_layers=[1, 2]),
    ),
    "qwen3_moe": ("qwen3_moe", _base(_EXPERTS, head_dim=8, mlp_only_layers=[0])),
    "deepseek_v2": (
        "deepseek_v2",
        _base(_ROUTED, _LATENT, first_k_dense_replace=1, n_shared_experts=1, topk_method="greedy", head_dim=4),
    ),
    "deepseek_v3": ("deepseek_v3", _base(_ROUTED, _LATENT, first_k_dense_replace=2, n_shared_experts=1)),
    "dots1": ("dots1", _base(_ROUTED, first_k_dense_replace=1, head_dim=8, n_shared_experts=1, sliding_window=4)),
    "glm4_moe": ("glm4_moe", _base(_ROUTED, first_k_dense_replace=1, head_dim=8)),
    "gpt_oss": ("gpt_oss", _base(num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=4)),
    "llama4_text": (
        "llama4_text",
        _base(
            {"intermediate_size_mlp": 48, "num_local_experts": 4, "num_experts_per_tok": 1, "head_dim": 8},
            {"interleave_moe_layer_step": 2, "attention_chunk_size": 4},
        ),
    ),
    "exaone4": ("exaone4", _base(sliding_window=4, sliding_window_pattern=4)),
    "exaone_moe": ("exaone_moe", _base(_EXPERTS, sliding_window=4, n_group=1, topk_group=1)),
    "ministral": (
        "ministral",
        _base(sliding_window=4, head_dim=8, layer_types=["sliding_attention", "full_attention"] * 4),
    ),
    "afmoe": ("afmoe", _base(_EXPERTS, head_dim=8, num_dense_layers=2, sliding_window=4, n_group=1, topk_group=1)),
    "ernie4_5": ("ernie4_5", _base(head_dim=8)),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        _base(moe_num_experts=4, moe_k=2, moe_intermediate_size=16, moe_layer_start_index=1, moe_layer_end_index=7),
    ),
    "lfm2": ("lfm2", _base(layer_types=["conv", "conv", "full_attention", "conv"] * 2, block_auto_adjust_ff_dim=False)),
    "lfm2_moe": (
        "lfm2_moe",
        _base(_EXPERTS, layer_types=["conv", "conv", "full_attention", "conv"] * 2, num_dense_layers=2),
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        _base(
            _MAMBA2,
            layer_types=["linear_attention", "linear_attention", "full_attention", "linear_attention"] * 2,
            num_local_experts=4,
            num_experts_per_tok=2,
            shared_intermediate_size=16,
        ),
    ),
    "qwen3_next": ("qwen3_next", _base(_EXPERTS, _LINEAR, shared_expert_intermediate_size=16)),
    "qwen3_5_text": ("qwen3_5_text", _base(_LINEAR)),
    "falcon_h1": ("falcon_h1", _base(_MAMBA2, mamba_d_ssm=32, mamba_n_heads=4, head_dim=8)),
    "jamba": (
        "jamba",
        _base(
            {"num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 8, "mamba_dt_rank": 4},
            {"attn_layer_period": 4, "attn_layer_offset": 2, "use_mamba_kernels": False},
        ),
    ),
    "bamba": ("bamba", _base(_MAMBA2, attn_layer_indices=[2, 5])),
    "nemotron_h": (
        "nemotron_h",
        _base(
            _ROUTED,
            layers_block_type=["linear_attention", "mlp", "full_attention", "moe"] * 2,
            head_dim=8,
            mamba_num_heads=8,
            mamba_head_dim=8,
            ssm_state_size=8,
            n_groups=1,
            moe_shared_expert_intermediate_size=16,
            num_hidden_layers=...,
        ),
    ),
    "recurrent_gemma": ("recurrent_gemma", _base(lru_width=32, attention_window_size=8, head_dim=8)),
    "mamba": ("mamba", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": LAYERS, "state_size": 8}),
    "mamba2": (
        "mamba2",
        {
            **{"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_heads": 8, "head_dim": 8},
            **{"state_size": 8, "n_groups": 1},
        },
    ),
    "rwkv": (
        "rwkv",
        {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": LAYERS, "attention_hidden_size": 32},
    ),
    "nanochat": ("nanochat", _base()),
    "bitnet": ("bitnet", _base()),
    "falcon_mamba": (
        "falcon_mamba",
        {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": LAYERS, "state_size": 8},
    ),
    "glm4_moe_lite": ("glm4_moe_lite", _base(_ROUTED, _LATENT)),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", _base(head_dim=8, num_experts=4, moe_topk=2)),
    "minimax_m2": ("minimax_m2", _base(num_local_experts=4, num_experts_per_tok=2, head_dim=8)),
    "ministral3": ("ministral3", _base(sliding_window=4, head_dim=8)),
    "mimo_v2_flash": ("mimo_v2_flash", _base(_EXPERTS, sliding_window=4, head_dim=8, v_head_dim=8, n_routed_experts=4)),
    "modernbert-decoder": (
        "modernbert-decoder",
        _base(num_key_value_heads=..., local_attention=4, global_attn_every_n_layers=3),
    ),
    "minicpm3": ("minicpm3", _base(_LATENT)),
    "jetmoe": (
        "jetmoe",
        {
            **{"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_key_value_heads": 2},
            **{"kv_channels": 8, "intermediate_size": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
        },
    ),
    "nemotron": ("nemotron", _base()),
    "seed_oss": ("seed_oss", _base(head_dim=8)),
    "helium": ("helium", _base(head_dim=8)),
    "glm": ("glm", _base(head_dim=8)),
    "glm4": ("glm4", _base(head_dim=8)),
    "apertus": ("apertus", _base()),
    "arcee": ("arcee", _base()),
    "cwm": ("cwm", _base(sliding_window=4)),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", _base(head_dim=8)),
    "persimmon": ("persimmon", _base(num_key_value_heads=...)),
    "biogpt": ("biogpt", _base(num_key_value_heads=...)),
    "xglm": (
        "xglm",
        {"vocab_size": 96, "d_model": 32, "num_layers": LAYERS, "attention_heads": 4, "ffn_dim": 48},
    ),
}

_VISION = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 2},
    **{"image_size": 16, "patch_size": 8},
}
_QWEN_VISION = {"hidden_size": 16, "out_hidden_size": 32, "depth": LAYERS, "num_heads": 2, "intermediate_size": 24}
_MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}

MULTIMODAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llava": (
        "LlavaForConditionalGeneration",
        {
            "text_config": _base(model_type="llama"),
            "vision_config": {**_VISION, "model_type": "clip_vision_model", "projection_dim": 16},
            "image_token_index": 95,
        },
    ),
    "mistral3": (
        "Mistral3ForConditionalGeneration",
        {
            "text_config": _base(model_type="mistral", head_dim=8),
            "vision_config": {**_VISION, "model_type": "pixtral", "head_dim": 8},
            "image_token_index": 95,
        },
    ),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": _base(head_dim=8, sliding_window=4),
            "vision_config": _VISION,
            **{"mm_tokens_per_image": 4, "image_token_index": 95, "boi_token_index": 94, "eoi_token_index": 93},
        },
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": _base(rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]}),
            "vision_config": {**_QWEN_VISION, "patch_size": 4, "fullatt_block_indexes": [3]},
            **{"image_token_id": 95, "video_token_id": 94, "vision_start_token_id": 93},
        },
    ),
    "qwen3_vl": (
        "Qwen3VLForConditionalGeneration",
        {
            "text_config": _base(head_dim=8, rope_parameters=_MROPE),
            "vision_config": {
                **_QWEN_VISION,
                **{"patch_size": 4, "num_position_embeddings": 16, "deepstack_visual_indexes": [1, 3, 5]},
            },
            **{"image_token_id": 95, "video_token_id": 94, "vision_start_token_id": 93, "vision_end_token_id": 92},
        },
    ),
    "smolvlm": (
        "SmolVLMForConditionalGeneration",
        {"text_config": _base(model_type="llama"), "vision_config": _VISION, "image_token_id": 95},
    ),
}
"""Decoders nested in a model that also sees; the vision tower has as many layers as the decoder."""


def make_tiny(name: str, folder: Path) -> Path:
    """Write a random model of the family; all its weights are far from what they are initialised to."""
    if name in MULTIMODAL:
        kind, sizes = MULTIMODAL[name]
        model_class = getattr(transformers, kind)
        model = model_class(model_class.config_class(**sizes))
    else:
        model_type, sizes = FAMILIES[name]
        model = transformers.AutoModelForCausalLM.from_config(transformers.CONFIG_MAPPING[model_type](**sizes))
    scramble(model.float())
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def scramble(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:
            parameter.add_(0.1 * noise)
        elif "A_log" not in name:
            parameter.copy_(0.15 * noise)
