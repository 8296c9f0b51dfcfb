"""What a model folder must be before its weights are taken in."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from solar.config.model import ArchitectureConfig
from solar.errors import ConfigError, StageError
from solar.models import llama, tensors
from solar.models.folder import read_json


def refuse_code(source: Path, settings: dict[str, Any]) -> None:
    tokenizer = source / "tokenizer_config.json"
    for path, content in (
        (source / "config.json", settings),
        (tokenizer, read_json(tokenizer) if tokenizer.exists() else {}),
    ):
        if "auto_map" in content:
            raise StageError(f"{path}: auto_map asks to run code that came with the model, which is never done here")


def check_sizes(settings: dict[str, Any], expects: ArchitectureConfig, source: Path) -> None:
    found = llama.sizes(settings)
    names = [item.name for item in fields(expects)]
    odd = [name for name in names if getattr(found, name) != getattr(expects, name)]
    if odd:
        told = ", ".join(f"{name} is {getattr(found, name)}, not {getattr(expects, name)}" for name in odd)
        raise ConfigError(f"expects: {source}: {told}; correct the numbers or the source")


def check_tensors(settings: dict[str, Any], files: list[Path], source: Path) -> None:
    found = {name: tuple(entry["shape"]) for path in files for name, entry in tensors.read_header(path)[0].items()}
    if settings.get("model_type") not in llama.LLAMA_SHAPED:
        return
    expected = llama.tensor_shapes(settings)
    # Older exports carry constants that the model computes itself, and the tied head a second time.
    ignored = {name for name in found if name.endswith(".rotary_emb.inv_freq") or name == "lm_head.weight"}
    unexpected = sorted(set(found) - set(expected) - ignored)
    missing = sorted(set(expected) - set(found))
    if unexpected:
        raise StageError(
            f"{source}: holds {unexpected[0]}{_more(unexpected)}, which its config.json does not account for"
        )
    if missing:
        raise StageError(
            f"{source}: lacks {missing[0]}{_more(missing)}, which its config.json asks for; fetch it again"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise StageError(f"{source}: {name} has shape {found[name]}, expected {shape} by its config.json")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
