"""The files that belong to a model besides its weights: tokenizer, generation settings, chat templates, licence."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from solar.weights.members import TEMPLATES, check_members, member

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.tiktoken",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
OTHERS = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
TRAVELLING = (*TOKENIZER, *OTHERS, *LEGAL)
"""Patterns of the files that are copied from a model to one made from it. All others stay: weights in other formats,
training logs, code, and the card, which describes the base alone."""


def copy_travelling_files(source: Path, target: Path, patterns: Iterable[str] = TRAVELLING) -> None:
    """Copy the files that travel, byte for byte. Raises `ArtifactError` as `check_members`."""
    check_members(source)
    for name in _travelling_files(source, patterns):
        path = member((source / name).parent, Path(name).name)
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target / name)


def _travelling_files(folder: Path, patterns: Iterable[str]) -> Iterator[str]:
    """Names, relative to the folder, of its files that travel."""
    names = {path.name for pattern in patterns for path in folder.glob(pattern)}
    yield from sorted(names)
    if (folder / TEMPLATES).is_dir():
        yield from (f"{TEMPLATES}/{path.name}" for path in sorted((folder / TEMPLATES).glob("*.jinja")))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer's files."""
    copy_travelling_files(source, target, TOKENIZER)


def copy_or_link(source: Path, target: Path, link: bool) -> bool:
    """Put a file's bytes at `target`: a second name of the same file if `link` and the file system can.

    Returns whether the target is a link.
    """
    if link:
        try:
            os.link(source.resolve(), target)
        except OSError:
            pass
        else:
            return True
    shutil.copyfile(source, target)
    return False
