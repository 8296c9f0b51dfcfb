"""The files that belong to a model besides its weights: tokenizer, generation settings, chat templates, licence."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from solar.weights.json_file import read_json
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
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
"""Files of the default template; transformers prefers them to the one in `tokenizer_config.json`."""
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


def chat_template(folder: Path) -> str | None:
    """The template that transformers finds in a folder, the default one of several; None if there is none.

    Raises `ArtifactError` for files that leave the folder or that cannot be read.
    """
    if (folder / TEMPLATE_FILES[0]).exists():
        return member(folder, TEMPLATE_FILES[0]).read_text(encoding="utf-8", errors="replace")
    for name in (TEMPLATE_FILES[1], "tokenizer_config.json"):
        named = read_json(member(folder, name)).get("chat_template") if (folder / name).exists() else None
        if isinstance(named, list):
            named = next(
                (each.get("template") for each in named if isinstance(each, dict) and each.get("name") == "default"),
                None,
            )
        if isinstance(named, str):
            return named
    return None


def template_sha256(folder: Path) -> str | None:
    """The hash of a folder's chat template; None if there is none."""
    template = chat_template(folder)
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()
