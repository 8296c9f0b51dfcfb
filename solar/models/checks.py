"""Checks of a model folder before its weights are imported."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from solar.config.model import ArchitectureConfig
from solar.errors import ConfigError, StageError
from solar.models import llama
from solar.weights.folder import CONFIG_FILE, ModelFolder
from solar.weights.quantised import quantisation

_SHAPING = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
"""Sizes that the shapes of a Llama's tensors follow from."""


def check_sizes(settings: dict[str, Any], expects: ArchitectureConfig, source: Path) -> None:
    stored = llama.sizes(settings)
    names = [item.name for item in fields(expects)]
    differing = [name for name in names if getattr(stored, name) != getattr(expects, name)]
    if differing:
        differences = ", ".join(
            f"{name} is {getattr(stored, name)}, not {getattr(expects, name)}" for name in differing
        )
        raise ConfigError(f"expects: {source}: {differences}; correct the numbers or the source")


def check_counts(settings: dict[str, Any], source: Path) -> None:
    """Raises `StageError` for a size of a Llama that is no whole number above 0."""
    for name in (*_SHAPING, "num_key_value_heads", "head_dim", "max_position_embeddings"):
        value = settings.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise StageError(f"{source / CONFIG_FILE}: {name} is {value!r}, expected a whole number above 0")


def check_tensors(settings: dict[str, Any], source: ModelFolder) -> None:
    """Raises `StageError` where a Llama's tensors are not those that its config.json implies."""
    if settings.get("model_type") not in llama.LLAMA_SHAPED or quantisation(settings) is not None:
        return
    if any(getattr(llama.sizes(settings), name) is None for name in _SHAPING):
        return  # `transformers` has defaults for sizes that a config.json leaves out
    check_counts(settings, source.folder)
    shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
    expected = llama.tensor_shapes(settings)
    # Older exports carry constants that the model computes itself, and the tied head a second time.
    ignored = {name for name in shapes if name.endswith(".rotary_emb.inv_freq") or name == "lm_head.weight"}
    unexpected = sorted(set(shapes) - set(expected) - ignored)
    missing = sorted(set(expected) - set(shapes))
    if unexpected:
        raise StageError(
            f"{source.folder}: holds {unexpected[0]}{_more(unexpected)}, which its config.json does not account for"
        )
    if missing:
        raise StageError(
            f"{source.folder}: lacks {missing[0]}{_more(missing)}, which its config.json asks for; fetch it again"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise StageError(f"{source.folder}: {name} has shape {shapes[name]}, expected {shape} by its config.json")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
