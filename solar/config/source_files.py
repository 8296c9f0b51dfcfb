"""Which files the path of a source means: one rule, for the hash that names a stage and for the reader of its rows."""

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
"""What tools leave beside the rows to describe them."""
STATE = "state.json"
"""What `Dataset.save_to_disk` leaves beside its Arrow files."""
_CACHE = re.compile(r"cache-[0-9a-f]+\.arrow")
"""What `map` and `filter` of `datasets` leave beside the Arrow files that they read."""


def source_files(path: Path) -> list[Path]:
    """The files of a file, a folder or a glob, in order of name; none if nothing readable is there.

    A file that is named is taken as it is. Of folders and globs: files with a known suffix that are not hidden, plain
    text only where there are no files of rows (so a README beside Parquet files is none of the data). Where `datasets`
    saved a set, the Arrow files that its `state.json` lists.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(_below(path, set()))
    else:
        found = list(map(Path, glob(str(path), recursive=True))) if has_magic(str(path)) else []  # noqa: PTH207
    known = sorted(file for file in set(found) if kind(file) in ROWS + TEXTS and file.is_file() and _is_data(file))
    return [file for file in known if kind(file) in ROWS] or known


def listed_files(folder: Path) -> list[str] | None:
    """The Arrow files that `state.json` of a saved set lists; None if the folder holds no saved set."""
    try:
        listed = json.loads((folder / STATE).read_text(encoding="utf-8"))["_data_files"]
        return [str(entry["filename"]) for entry in listed]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_data(file: Path) -> bool:
    """Whether a file holds rows of its own, and no description or cache of other files."""
    if file.suffix.lower() == ".arrow":
        listed = listed_files(file.parent)
        return not _CACHE.fullmatch(file.name) if listed is None else file.name in listed
    return file.name not in _CARDS


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files of a folder and its folders, also where these are links, each folder once."""
    seen.add(folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() not in seen:
            yield from _below(path, seen)


def kind(file: Path) -> str:
    """The suffix that says what is in a file, behind the one that says how it is compressed.

    >>> kind(Path("a/b.jsonl.gz")), kind(Path("B.JSONL.ZST"))
    ('.jsonl', '.jsonl')
    """
    return Path(file.stem if compression(file) else file.name).suffix.lower()


def compression(file: Path) -> str | None:
    """`.gz`, `.zst` or None."""
    suffix = file.suffix.lower()
    return suffix if suffix in COMPRESSED else None
