"""Which files of a model folder may be read: the door before our readers and those of any library.

A folder is somebody else's. Its files are regular files in the folder itself, of a size that fits into memory; its JSON
chooses no code and asks for no billion layers. Libraries follow links, wait for pipes, and build what JSON asks for.
"""

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

from solar.errors import ArtifactError
from solar.weights.json_file import MAX_BYTES, code_keys, huge_counts, read_json

CONFIGURATIONS = (
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "model.safetensors.index.json",
)
"""JSON files that transformers reads in a model folder, besides the vocabulary."""
MAX_CONFIGURATION_VALUES = 500_000
"""Indexes of the largest mixtures of experts list a quarter of this."""
MAX_ID = 10**7
_LONG_NUMBER = re.compile(rb"[:,\[]\s*[0-9]{8,}\s*[,}\]]")
"""Tokenizers with such a number are rare: only they are parsed, which takes a second for the largest."""
VOCABULARIES = ("tokenizer*.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken", "tekken.json", "*.jinja")
TEMPLATES = "additional_chat_templates"
"""Folder of named chat templates, `*.jinja`."""


def check_members(folder: Path) -> None:
    """Look at every file that transformers reads beside the weights.

    Raises `ArtifactError` for a link that leads out, for what is no regular file, for a file that is too large, and for
    JSON that is nested too deep, chooses code to run, or asks for more layers than any model has.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        _refuse(folder, "may not be read by this user")
    for name in _present(folder):
        path = member((folder / name).parent, Path(name).name)
        if (size := path.stat().st_size) > MAX_BYTES:
            _refuse(path, f"{size:,} bytes found, expected at most {MAX_BYTES:,}")
        if name in CONFIGURATIONS:
            _check_json(path)
        elif path.suffix == ".json" and _LONG_NUMBER.search(path.read_bytes()):
            _check_ids(path)


def _check_json(path: Path) -> None:
    content = read_json(path, MAX_CONFIGURATION_VALUES)
    for key in code_keys(content):
        _refuse(path, f"{key} asks to run code, which is never done here; remove the key if the model works without it")
    for key, count in huge_counts(content):
        _refuse(path, f"{key}: {count:,} found, more than any model has; correct the number")


def _check_ids(path: Path) -> None:
    """tokenizers reserves memory for as many tokens as the largest id says; where that fails, the process ends."""
    waiting: list[Any] = [read_json(path)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and value > MAX_ID:
            _refuse(path, f"{value} found, expected ids of tokens up to {MAX_ID:,}")


def _present(folder: Path) -> Iterator[str]:
    patterns = (*CONFIGURATIONS, *VOCABULARIES)
    yield from sorted(path.name for path in folder.iterdir() if any(fnmatch(path.name, word) for word in patterns))
    templates = folder / TEMPLATES
    if templates.is_symlink() or (templates.exists() and not templates.is_dir()):
        _refuse(templates, "a link or a file, expected a folder of templates")
    if templates.is_dir():
        yield from (f"{TEMPLATES}/{path.name}" for path in sorted(templates.glob("*.jinja")))


def member(folder: Path, name: str) -> Path:
    """The path of a regular file directly in the folder. A link may lead only to the store of a Hugging Face cache."""
    path = folder / name
    plain = name == Path(name).name and not any(letter in name for letter in "/\\\0") and name not in ("", ".", "..")
    if not plain or not _is_encodable(name):
        raise ArtifactError(f"{folder}: file name {name!r} found, expected a plain name in this folder")
    try:
        if not path.exists():
            _refuse(path, "no such file")
        target = path.resolve()
    except OSError as error:
        _refuse(path, f"cannot be read ({error.strerror})")
    roots = [folder.resolve(), *_cache_store(folder.resolve())]
    if not any(target.is_relative_to(root) for root in roots):
        _refuse(path, f"a link to {target}, outside the folder; copy the file here if you trust it")
    if not target.is_file():
        _refuse(path, "not a regular file")
    if not os.access(target, os.R_OK):
        _refuse(path, "may not be read by this user")
    return path


def _is_encodable(name: str) -> bool:
    """A lone surrogate of JSON is no character of a file's name."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _cache_store(folder: Path) -> list[Path]:
    """`blobs` of the Hugging Face cache, if the folder is a snapshot of that cache or lies in a snapshot."""
    return [
        store
        for snapshot in (folder, folder.parent)
        if snapshot.parent.name == "snapshots" and (store := snapshot.parent.parent / "blobs").is_dir()
    ]


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ArtifactError(f"{path}: {reason}")
