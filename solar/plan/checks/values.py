"""Ranges that hold in every stage: seeds, and names of files inside a folder."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

_SEEDS = 2**32
"""numpy and Lightning take seeds below it."""


def value_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """What is wrong with the values of a stage, as `key: what was found, what was expected`."""
    if isinstance(config, dict):
        for name, value in config.items():
            yield from value_problems(value, f"{prefix}{name}.")
    elif is_dataclass(config):
        for item in fields(config):
            key, value = f"{prefix}{item.name}", getattr(config, item.name)
            if item.name == "seed" and isinstance(value, int) and not 0 <= value < _SEEDS:
                yield f"{key}: found {value}, expected 0 to below 2^32"
            elif item.name == "file" and isinstance(value, str) and _leaves_its_folder(value):
                yield f"{key}: found '{value}', expected a name inside the folder; take `path` for other files"
            else:
                yield from value_problems(value, f"{key}.")


def _leaves_its_folder(name: str) -> bool:
    """
    >>> _leaves_its_folder("a/b.jsonl"), _leaves_its_folder("../b.jsonl"), _leaves_its_folder("/b.jsonl")
    (False, True, True)
    """
    path = PurePath(name)
    return path.is_absolute() or ".." in path.parts
