"""Convert a Llama in a GGUF file to a Hugging Face folder, tensor by tensor, without torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from solar.config.model import ArchitectureConfig
from solar.errors import StageError, library_errors
from solar.models import gguf_tokenizer, llama
from solar.models.gguf_header import check_header
from solar.weights.folder import CONFIG_FILE, SINGLE_FILE
from solar.weights.header import DTYPE_OF
from solar.weights.json_file import write_json
from solar.weights.numbers import Wide
from solar.weights.values import write_tensors

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE_NUMBERS = (
    "llama.attention.head_count",
    "llama.block_count",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.context_length",
)


def convert(path: Path, dtype: str, output: Path) -> dict[str, Any]:
    """Write `config.json`, `model.safetensors` and the tokenizer's files; returns the config.

    Raises:
        StageError: the extra `gguf` is not installed, or the file is not a plain Llama with a tokenizer known to us.
    """
    with library_errors(path, "it is no GGUF file, or damaged: fetch it again", StageError):
        return _convert(path, dtype, output)


def _convert(path: Path, dtype: str, output: Path) -> dict[str, Any]:
    reader = _open(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama":
        architecture = fields.get("general.architecture")
        raise StageError(f"{path}: holds a {architecture} model, expected llama; give its safetensors folder instead")
    by_name = {_translate(tensor.name, path): tensor for tensor in reader.tensors}
    ids = gguf_tokenizer.write(fields, path, output)
    sizes = _sizes(fields, "lm_head.weight" not in by_name, path)
    if sizes.num_hidden_layers > len(by_name):
        raise StageError(
            f"{path}: {sizes.num_hidden_layers} layers announced, but {len(by_name)} tensors stored; fetch it again"
        )
    config = llama.model_config(sizes, 0.02, dtype) | ids
    shapes = llama.tensor_shapes(config)
    if set(shapes) != set(by_name):
        odd = sorted(set(shapes) ^ set(by_name))
        raise StageError(f"{path}: tensors differ from those of its own sizes ({odd[0]} and {len(odd) - 1} more)")
    weights = _weights(by_name, shapes, config, path)
    write_tensors(output / SINGLE_FILE, dict.fromkeys(shapes, DTYPE_OF[dtype]), shapes, weights)
    write_json(output / CONFIG_FILE, config)
    write_json(output / "generation_config.json", ids)
    return config


def _open(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise StageError(f"{path}: reading GGUF needs the package gguf; pip install 'solar[gguf]'") from error
    check_header(path)
    return GGUFReader(path)


def _sizes(fields: dict[str, Any], tied: bool, path: Path) -> ArchitectureConfig:
    if any(name.startswith("llama.rope.scaling") for name in fields):
        raise StageError(f"{path}: scales its rotary positions, which is not read here; give its safetensors folder")
    try:
        for name in _WHOLE_NUMBERS:
            if not isinstance(fields[name], int) or fields[name] < 1:
                raise StageError(f"{path}: {name} is {str(fields[name])[:40]!r}, expected a whole number above 0")
        heads = fields["llama.attention.head_count"]
        return ArchitectureConfig(
            num_hidden_layers=fields["llama.block_count"],
            hidden_size=fields["llama.embedding_length"],
            intermediate_size=fields["llama.feed_forward_length"],
            num_attention_heads=heads,
            num_key_value_heads=fields.get("llama.attention.head_count_kv", heads),
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            max_position_embeddings=fields["llama.context_length"],
            tie_word_embeddings=tied,
            rope_theta=_shortest(fields.get("llama.rope.freq_base", 10000.0)),
            rms_norm_eps=_shortest(fields["llama.attention.layer_norm_rms_epsilon"]),
        )
    except KeyError as error:
        raise StageError(f"{path}: lacks {error}, expected a Llama; give its safetensors folder instead") from error


def _shortest(value: float) -> float:
    """GGUF stores 32-bit floats: 9.999999747378752e-06 was 1e-05."""
    return float(str(np.float32(value)))


def _translate(name: str, path: Path) -> str:
    """Name in `transformers` of a tensor's name in GGUF."""
    block, _, rest = name.partition(".")
    index, _, part = rest.partition(".")
    part, _, kind = part.partition(".")
    if block == "blk" and part in _LAYER and kind == "weight":
        return f"model.layers.{index}.{_LAYER[part]}.weight"
    if name not in _NAMES:
        raise StageError(
            f"{path}: holds {name}, which a plain Llama does not have; give its safetensors folder instead"
        )
    return _NAMES[name]


def _weights(
    by_name: dict[str, Any], shapes: dict[str, tuple[int, ...]], config: dict[str, Any], path: Path
) -> Iterator[Wide]:
    from gguf.quants import dequantize

    for name, shape in shapes.items():
        tensor = by_name[name]
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if values.shape != shape:
            raise StageError(f"{path}: {tensor.name} has shape {values.shape}, expected {shape}")
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if part in name:
                values = _unpermute(values, config[heads])
        yield values


def _unpermute(values: Wide, heads: int) -> Wide:
    """GGUF pairs the rotary dimensions of a head as neighbours, `transformers` as halves."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
