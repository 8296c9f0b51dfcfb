"""Which files the path of a source means: the same rule for the hash in a stage's id and for reading the rows."""

import json
import re
from collections.abc import Iterator
from glob import glob, has_magic  # skips hidden files, and takes patterns that `pathlib` refuses
from pathlib import Path

ROWS = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".csv", ".tsv")
"""Suffixes of files of rows."""
TEXTS = (".txt", ".text", ".md")
"""Suffixes of plain text."""
COMPRESSED = (".gz", ".zst")
_CARDS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "manifest.json")
"""Files that describe the rows beside them."""
STATE = "state.json"
"""Written by `Dataset.save_to_disk`; lists the Arrow files of the data set."""
_CACHE = re.compile(r"cache-[0-9a-f]+\.arrow")
"""Written by `map` and `filter` of `datasets` beside the Arrow files that they read."""


def source_files(path: Path) -> list[Path]:
    """The files of a file, a folder or a glob, in order of name; none if there is no readable file.

    A path to a file means that file. A folder or glob means its files with a known suffix, except hidden files; plain
    text only counts if there are no files of rows (a README beside Parquet files is not data). In a data set that
    `datasets` saved, only the Arrow files count that its `state.json` lists.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        files = list(_below(path, set()))
    else:
        files = list(map(Path, glob(str(path), recursive=True))) if has_magic(str(path)) else []  # noqa: PTH207
    known = sorted(file for file in set(files) if kind(file) in ROWS + TEXTS and file.is_file() and _is_data(file))
    return [file for file in known if kind(file) in ROWS] or known


def listed_files(folder: Path) -> list[str] | None:
    """The Arrow files that `state.json` of a saved set lists; None if the folder holds no saved set."""
    try:
        listed = json.loads((folder / STATE).read_text(encoding="utf-8"))["_data_files"]
        return [str(entry["filename"]) for entry in listed]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_data(file: Path) -> bool:
    """Whether a file holds rows, and is neither a description nor a cache of other files."""
    if file.suffix.lower() == ".arrow":
        listed = listed_files(file.parent)
        return not _CACHE.fullmatch(file.name) if listed is None else file.name in listed
    return file.name not in _CARDS


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files of a folder and of its folders, including linked folders; each folder is visited once."""
    seen.add(folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() not in seen:
            yield from _below(path, seen)


def kind(file: Path) -> str:
    """The suffix of a file's content, before the suffix of its compression.

    >>> kind(Path("a/b.jsonl.gz")), kind(Path("B.JSONL.ZST"))
    ('.jsonl', '.jsonl')
    """
    return Path(file.stem if compression(file) else file.name).suffix.lower()


def compression(file: Path) -> str | None:
    """`.gz`, `.zst` or None."""
    suffix = file.suffix.lower()
    return suffix if suffix in COMPRESSED else None
