"""Checkpoints whose weights are packed integers, or 8-bit floats with scales."""

from pathlib import Path
from typing import Any

from solar.errors import ArtifactError
from solar.weights.folder import CONFIG_FILE, ModelFolder

KEYS = ("quantization_config", "compression_config")
PACKED_DTYPES = ("F8_", "F6_", "F4")
"""Beginnings of the names of number formats that are mean nothing without a scale."""
INTEGER_DTYPES = ("I8", "U8", "I16", "U16", "I32", "U32")


def quantisation(config: dict[str, Any]) -> str | None:
    """The name of the method that a config.json gives, at any depth; None if the weights are plain numbers.

    >>> quantisation({"quantization_config": {"quant_method": "gptq"}}), quantisation({"text_config": {}})
    ('gptq', None)
    """
    for key, value in config.items():
        if key in KEYS and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            return str(method or "a method that it does not name")
        if isinstance(value, dict) and (inner := quantisation(value)) is not None:
            return inner
    return None


def without_quantisation(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json that describes the same model in plain numbers.

    >>> without_quantisation({"text_config": {"quantization_config": {"quant_method": "fp8"}, "n": 1}})
    {'text_config': {'n': 1}}
    """
    return {
        key: without_quantisation(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in KEYS
    }


def refuse_quantised(folder: Path, config: dict[str, Any]) -> None:
    """Raises `ArtifactError` if config.json says that the weights are quantised."""
    if (method := quantisation(config)) is not None:
        raise ArtifactError(
            f"{folder / CONFIG_FILE}: quantised with {method}; "
            f"dequantise first: python -m solar.grow convert {folder} OUT"
        )


def refuse_packed(model: ModelFolder) -> None:
    """Raises `ArtifactError` for weights that are stored as packed numbers, whatever config.json says."""
    for name, tensor in model.tensors.items():
        if tensor.dtype.startswith(PACKED_DTYPES) or (tensor.dtype in INTEGER_DTYPES and name.endswith("weight")):
            raise ArtifactError(
                f"{tensor.path}: {name} is stored as {tensor.dtype}, so quantised, and config.json does not say how; "
                "fetch the original model"
            )
