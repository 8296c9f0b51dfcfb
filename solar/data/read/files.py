"""Local files as rows: JSON lines, JSON arrays, CSV, Parquet, Arrow and plain text, also compressed.

A row that cannot be read is yielded as a `BadRow` in its place, with file and line, so that whoever reads decides what
it costs; the readers of `datasets` stop at the first one and cannot name its line. Memory stays flat.
"""

import csv
import io
import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from solar.config.source_files import ROWS, STATE, TEXTS, compression, kind, listed_files, source_files
from solar.config.splits import files_of_split
from solar.data.read.messages import BadRow, Row
from solar.data.read.unpack import open_unpacked
from solar.errors import DataError

Located = tuple[str, Row | BadRow]
"""`file:line`, and the row or why there is none."""

MAX_LINE_BYTES = 64 * 2**20
_PARQUET_ROWS = 32
TEXT_DOCUMENT_CHARACTERS = 4_000
"""A plain text file is cut at blank lines into documents of at least this size."""


def find(path: Path, split: str = "train") -> list[Path]:
    """The files of one split of a file, folder or glob, in order of name.

    Raises `DataError` if there is none, if several splits lie side by side and none of them is `split`, or if a file
    that a saved set lists is missing.
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
    """The rows of one file. Raises `DataError` for a kind of file that is not known."""
    suffix = kind(file)
    if suffix in (".parquet", ".arrow"):
        yield from _tables(file, _parquet if suffix == ".parquet" else _arrow)
    elif suffix in TEXTS:
        yield from _text(file)
    elif suffix in (".csv", ".tsv"):
        yield from _separated(file, "," if suffix == ".csv" else "\t")
    elif suffix in (".jsonl", ".ndjson", ".json"):
        try:
            yield from _json_array(file) if suffix == ".json" and _is_array(file) else _json_lines(file)
        except (OSError, EOFError, zlib.error) as error:
            yield f"{file}:1", BadRow("damaged_file", f"the compressed file is damaged: {error}")
    else:
        raise DataError(f"{file}: unknown kind of file, expected {', '.join(ROWS + TEXTS)} (also .gz, .zst)")


def lines(file: Path) -> Iterator[tuple[int, bytes | BadRow]]:
    """Numbered lines without their ends, the mark that some editors put in front, and blank ones."""
    with open_unpacked(file) as stream:
        number = 0
        while True:
            try:
                line = stream.readline(MAX_LINE_BYTES + 1)
            except (OSError, EOFError, zlib.error) as error:
                yield number + 1, BadRow("damaged_file", f"the compressed file is damaged: {error}")
                return
            if not line:
                return
            number += 1
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES)
                yield number, BadRow("too_long", f"a line of more than {MAX_LINE_BYTES // 2**20} MiB")
                continue
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def _json_lines(file: Path) -> Iterator[Located]:
    for number, line in lines(file):
        yield f"{file}:{number}", line if isinstance(line, BadRow) else parse(line)


def parse(line: bytes) -> Row | BadRow:
    """One JSON object. Not a row: anything else, a key that occurs twice, NaN and infinities."""
    try:
        value = json.loads(
            line.decode("utf-8"), object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        return BadRow("invalid_utf8", f"byte {error.start + 1} is not UTF-8")
    except BadRow as error:
        return error
    except RecursionError:
        return BadRow("too_deep", "brackets nested too deeply")
    except ValueError as error:
        return BadRow("invalid_json", f"not one JSON object ({error})")
    return (
        value
        if isinstance(value, dict)
        else BadRow("wrong_type", f"found a {type(value).__name__}, expected an object")
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRow("duplicate_key", "a key occurs twice")
    return found


def _not_finite(literal: str) -> Any:
    raise BadRow("not_finite", f"{literal} is not JSON")


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise BadRow("not_finite", f"{literal[:20]} is too large for a number")
    return value


def _is_array(file: Path) -> bool:
    with open_unpacked(file) as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _json_array(file: Path) -> Iterator[Located]:
    """A file that is one JSON array; the only kind that is read whole."""
    with open_unpacked(file) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf")
    value = parse(b'{"rows": ' + content + b"}")
    if isinstance(value, BadRow):
        yield f"{file}:1", value
        return
    for number, row in enumerate(value["rows"], 1):
        wrong = BadRow("wrong_type", f"found a {type(row).__name__}, expected an object")
        yield f"{file} item {number}", row if isinstance(row, dict) else wrong


def _separated(file: Path, separator: str) -> Iterator[Located]:
    """Rows under a line of names; every value is text. `file:line` is where a row ends."""
    csv.field_size_limit(MAX_LINE_BYTES)  # 128 KiB otherwise, and documents are longer
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


Batches = Callable[[BinaryIO], Iterator[pyarrow.RecordBatch]]


def _tables(file: Path, batches: Batches) -> Iterator[Located]:
    number = 0
    try:
        with _seekable(file) as stream:
            for batch in batches(stream):
                for row in _batch_rows(batch):
                    number += 1
                    yield f"{file} row {number}", row
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error) as error:
        yield f"{file} row {number + 1}", BadRow("damaged_file", f"not a readable file of tables ({error})")


def _batch_rows(batch: pyarrow.RecordBatch) -> list[Row | BadRow]:
    """Rows one by one where they are huge, or hold what Python has no value for: bytes that are no text, far dates."""
    huge = batch.nbytes > MAX_LINE_BYTES
    if huge and batch.num_rows == 1:
        return [BadRow("too_long", f"a row of more than {MAX_LINE_BYTES // 2**20} MiB")]
    try:
        if not huge:
            return cast(list[Row | BadRow], batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [BadRow("unreadable_value", f"a value cannot be read ({error})")]
    return [row for place in range(batch.num_rows) for row in _batch_rows(batch.slice(place, 1))]


def _seekable(file: Path) -> BinaryIO:
    """The file, or its unpacked copy that vanishes when it is closed: tables are read from several places."""
    if compression(file) is None:
        return file.open("rb")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (whoever reads the tables closes it)
    with open_unpacked(file) as packed:
        shutil.copyfileobj(packed, copy)
    copy.seek(0)
    return cast(BinaryIO, copy)


def _parquet(stream: BinaryIO) -> Iterator[pyarrow.RecordBatch]:
    with pyarrow.parquet.ParquetFile(stream) as table:
        # Few at a time: a value that is stored once can stand in every row, and no size in the file tells.
        yield from table.iter_batches(batch_size=_PARQUET_ROWS)


def _arrow(stream: BinaryIO) -> Iterator[pyarrow.RecordBatch]:
    """A stream of batches, as `datasets` saves it, or a file of batches, also called Feather."""
    beginning = stream.read(6)
    stream.seek(0)
    if beginning == b"ARROW1":
        with pyarrow.ipc.open_file(stream) as file:
            yield from map(file.get_batch, range(file.num_record_batches))
        return
    if beginning[:4] == b"FEA1":
        raise pyarrow.ArrowInvalid("Feather of version 1, which pyarrow.feather.write_feather replaces by version 2")
    with pyarrow.ipc.open_stream(stream) as table:
        yield from table


def _text(file: Path) -> Iterator[Located]:
    """Documents of whole paragraphs."""
    paragraphs: list[str] = []
    begun, size = 1, 0
    last = 0
    for number, line in lines(file):
        if isinstance(line, BadRow):
            yield f"{file}:{number}", line
            continue
        if number > last + 1 and size >= TEXT_DOCUMENT_CHARACTERS:
            yield f"{file}:{begun}", {"text": "\n".join(paragraphs)}
            paragraphs, size = [], 0
        begun = begun if paragraphs else number
        paragraphs += [""] * (number - last - 1 if paragraphs else 0)
        last = number
        try:
            paragraphs.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield f"{file}:{number}", BadRow("invalid_utf8", f"byte {error.start + 1} is not UTF-8")
            continue
        size += len(line) + 1
    if paragraphs:
        yield f"{file}:{begun}", {"text": "\n".join(paragraphs)}
