"""Local files as rows: JSON lines, JSON arrays, CSV, Parquet, Arrow and plain text, also compressed.

A row that cannot be read becomes a `BadRow` in its place, with file and line, and the caller decides what follows.
The readers of `datasets` stop at the first bad row and cannot name its line. Memory does not grow with the file.
"""

import csv
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from solar.config.source_files import ROWS, STATE, TEXTS, kind, listed_files, source_files
from solar.config.splits import files_of_split
from solar.data.read.json_array import is_array, json_array
from solar.data.read.json_rows import json_lines
from solar.data.read.lines import MAX_LINE_BYTES, lines
from solar.data.read.messages import BadRow, Located
from solar.data.read.tables import table_rows
from solar.data.read.unpack import open_unpacked
from solar.errors import DataError

TEXT_DOCUMENT_CHARACTERS = 4_000
"""A plain text file is cut at blank lines into documents of at least this size."""


def find(path: Path, split: str = "train") -> list[Path]:
    """The files of one split of a file, folder or glob, in order of name.

    Raises `DataError` if there is no file, if there are several splits and none is `split`, or if a file that
    `state.json` of a saved set lists is missing.
    """
    files = source_files(path)
    if not files:
        expected = ", ".join(ROWS + TEXTS)
        raise DataError(f"{path}: no such file, expected a file, a folder or a glob of {expected} (.gz, .zst)")
    chosen, wrong = files_of_split(files, path, split)
    if wrong:
        raise DataError(wrong)
    for folder in dict.fromkeys(file.parent for file in chosen if file.suffix.lower() == ".arrow"):
        for name in listed_files(folder) or []:
            if not (folder / name).is_file():
                raise DataError(f"{folder / STATE}: lists {name}, which is not there; save the set again")
    return chosen


def read(file: Path) -> Iterator[Located]:
    """The rows of one file. Raises `DataError` for an unknown kind of file."""
    suffix = kind(file)
    if suffix in (".parquet", ".arrow"):
        yield from table_rows(file)
    elif suffix in TEXTS:
        yield from _text(file)
    elif suffix in (".csv", ".tsv"):
        yield from _separated(file, "," if suffix == ".csv" else "\t")
    elif suffix in (".jsonl", ".ndjson", ".json"):
        try:
            yield from json_array(file) if suffix == ".json" and is_array(file) else json_lines(file)
        except (OSError, EOFError, zlib.error) as error:
            yield f"{file}:1", BadRow("damaged_file", f"the compressed file is damaged: {error}")
    else:
        raise DataError(f"{file}: unknown kind of file, expected {', '.join(ROWS + TEXTS)} (also .gz, .zst)")


def _separated(file: Path, separator: str) -> Iterator[Located]:
    """Rows below a line of column names. Every value is text. `file:line` names the last line of a row."""
    csv.field_size_limit(MAX_LINE_BYTES)  # the default of 128 KiB is too small for documents
    with open_unpacked(file) as stream:
        table = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), delimiter=separator, strict=True)
        names: list[str] = []
        while True:
            try:
                values = next(table, None)
            except (csv.Error, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
                yield f"{file}:{table.line_num + 1}", BadRow("damaged_file", f"what follows cannot be read: {error}")
                return
            if values is None:
                return
            if not names:
                names = values
                if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
                    yield f"{file}:1", BadRow("duplicate_key", f"two columns are called {repeated[0]!r}")
                    return
            elif values and len(values) != len(names):
                where = f"{file}:{table.line_num}"
                yield where, BadRow("wrong_columns", f"found {len(values)} values, expected {len(names)}")
            elif values:
                yield f"{file}:{table.line_num}", dict(zip(names, values, strict=True))


def _text(file: Path) -> Iterator[Located]:
    """Plain text as documents of whole paragraphs."""
    paragraphs: list[str] = []
    first, size = 1, 0
    last = 0
    for number, line in lines(file):
        if isinstance(line, BadRow):
            yield f"{file}:{number}", line
            continue
        if number > last + 1 and size >= TEXT_DOCUMENT_CHARACTERS:
            yield f"{file}:{first}", {"text": "\n".join(paragraphs)}
            paragraphs, size = [], 0
        first = first if paragraphs else number
        paragraphs += [""] * (number - last - 1 if paragraphs else 0)
        last = number
        try:
            paragraphs.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield f"{file}:{number}", BadRow("invalid_utf8", f"byte {error.start + 1} is not UTF-8")
            continue
        size += len(line) + 1
    if paragraphs:
        yield f"{file}:{first}", {"text": "\n".join(paragraphs)}
