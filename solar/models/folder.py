"""A Hugging Face folder on disk: which files count, and how they are read and carried, without torch."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from solar.errors import StageError

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
CARRIED = ("generation_config.json", *TOKENIZER, "LICENSE*", "NOTICE*", "README.md")
"""What travels with the weights, besides `config.json`."""
INDEX = "model.safetensors.index.json"
WEIGHTS = "model*.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """Raises `StageError` if the file is missing or no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error.strerror}); expected a Hugging Face folder") from error
    except ValueError as error:
        raise StageError(f"{path}: not JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise StageError(f"{path}: holds a {type(found).__name__}, expected a JSON object")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: one, or the shards its index names.

    Raises:
        StageError: there are none (weights in pickles are never read), or a shard is missing or outside the folder.
    """
    if (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise StageError(f"{folder / INDEX}: names {name!r}, which is not a file in {folder}; fetch it again")
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in folder.glob(pattern))
    if pickles:
        raise StageError(
            f"{folder}: has its weights in a pickle ({pickles[0]}), which can run code when it is read; "
            "convert it to safetensors where it was made (`save_pretrained`) and give that folder"
        )
    raise StageError(f"{folder}: has no model.safetensors and no {INDEX}; expected a Hugging Face model folder")


def carry(source: Path, target: Path, link: bool) -> None:
    """Put a file's bytes at `target`, as a second name of the same file if `link` and the file system can."""
    if link:
        try:
            os.link(source.resolve(), target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(source, target)


def carry_along(source: Path, target: Path) -> None:
    """Copy what belongs to a model besides weights and `config.json`."""
    for pattern in CARRIED:
        for path in sorted(source.glob(pattern)):
            shutil.copyfile(path, target / path.name)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer's files, byte by byte."""
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def vocabulary(tokenizer: Path) -> dict[str, int]:
    """Every token of a tokenizer, and its id."""
    content = read_json(tokenizer / "tokenizer.json")
    known = content["model"]["vocab"]
    ids = dict(known) if isinstance(known, dict) else {entry[0]: index for index, entry in enumerate(known)}
    return ids | {token["content"]: token["id"] for token in content.get("added_tokens", [])}


def token_ids(tokenizer: Path) -> dict[str, int]:
    """`bos_token_id`, `eos_token_id`, `pad_token_id`: those that the tokenizer has."""
    ids, settings = vocabulary(tokenizer), read_json(tokenizer / "tokenizer_config.json")
    found = {}
    for role in ("bos", "eos", "pad"):
        token = settings.get(f"{role}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token is not None and token in ids:
            found[f"{role}_token_id"] = ids[token]
    return found
