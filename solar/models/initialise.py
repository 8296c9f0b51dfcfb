"""Make a Llama with random weights."""

import zlib
from math import prod
from pathlib import Path

import numpy as np

from solar.config.model import ArchitectureConfig
from solar.errors import ConfigError
from solar.models import llama
from solar.models.vocabulary import token_ids, vocabulary
from solar.weights.folder import CONFIG_FILE, SINGLE_FILE
from solar.weights.json_file import write_json
from solar.weights.numbers import Wide
from solar.weights.travelling import copy_tokenizer
from solar.weights.values import write_tensors


def initialise(
    architecture: ArchitectureConfig, tokenizer: Path, initializer_range: float, seed: int, output: Path
) -> dict[str, int]:
    """Write a Hugging Face folder: norms are 1, other weights normal with standard deviation `initializer_range`.

    Each tensor has a random stream of its own, of the seed and its name, so a layer starts alike at any depth.

    Raises:
        ConfigError: `vocab_size` is not that of the tokenizer, or the sizes do not divide.
    """
    _check(architecture, 1 + max(vocabulary(tokenizer).values()))
    config = llama.model_config(architecture, initializer_range, "float32") | token_ids(tokenizer)
    shapes = llama.tensor_shapes(config)
    output.mkdir(parents=True, exist_ok=True)
    weights = (_draw(name, shape, initializer_range, seed) for name, shape in shapes.items())
    write_tensors(output / SINGLE_FILE, dict.fromkeys(shapes, "F32"), shapes, weights)
    write_json(output / CONFIG_FILE, config)
    write_json(output / "generation_config.json", token_ids(tokenizer))
    copy_tokenizer(tokenizer, output)
    return {"parameters": sum(map(prod, shapes.values())), "layers": architecture.num_hidden_layers}


def _draw(name: str, shape: tuple[int, ...], initializer_range: float, seed: int) -> Wide:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    stream = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    return stream.standard_normal(shape, np.float32) * np.float32(initializer_range)


def _check(architecture: ArchitectureConfig, tokens: int) -> None:
    sizes = architecture
    if sizes.vocab_size != tokens:
        raise ConfigError(
            f"architecture.vocab_size: found {sizes.vocab_size}, expected {tokens}, the size of the tokenizer"
        )
    if sizes.hidden_size % sizes.num_attention_heads:
        raise ConfigError(
            f"architecture.num_attention_heads: found {sizes.num_attention_heads}, "
            f"expected a divisor of hidden_size {sizes.hidden_size}"
        )
    if sizes.num_attention_heads % sizes.num_key_value_heads:
        raise ConfigError(
            f"architecture.num_key_value_heads: found {sizes.num_key_value_heads}, "
            f"expected a divisor of num_attention_heads {sizes.num_attention_heads}"
        )
