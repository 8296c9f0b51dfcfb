"""Checkpoints whose weights are packed integers or 8-bit floats with scales beside them."""

from pathlib import Path
from typing import Any, NoReturn

from solar.errors import ArtifactError

KEYS = ("quantization_config", "compression_config")


def quantisation(config: dict[str, Any]) -> dict[str, Any] | None:
    """What a config.json says of its quantisation, at any depth; None if the weights are plain numbers."""
    for key, value in config.items():
        if key in KEYS and value:
            return value if isinstance(value, dict) else {}
        if isinstance(value, dict) and (inner := quantisation(value)) is not None:
            return inner
    return None


def method_of(settings: dict[str, Any]) -> str:
    """The name of the method.

    >>> method_of({"quant_method": "gptq", "bits": 4}), method_of({"load_in_4bit": True}), method_of({})
    ('gptq', 'bitsandbytes', 'an unnamed method')
    """
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return str(settings.get("quant_method") or "an unnamed method")


def refuse_quantised(folder: Path, config: dict[str, Any], what: str) -> None:
    """Raises `ArtifactError` if the weights are quantised; `what` cannot be done with such weights."""
    settings = quantisation(config)
    if settings is not None:
        refuse(folder, method_of(settings), what)


def refuse(folder: Path, method: str, what: str) -> NoReturn:
    raise ArtifactError(
        f"{folder}: quantised with {method}, but {what} needs plain weights; dequantise first: "
        "python -m solar.grow convert BASE OUT"
    )
