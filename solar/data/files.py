"""Local files as rows: JSON lines, JSON arrays, Parquet and plain text, also compressed.

A row that cannot be read is yielded as a `BadRow` in its place, with file and line, so that whoever reads decides what
it costs; the readers of `datasets` stop at the first one and cannot name its line. Memory stays flat.
"""

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from solar.data.formats import BadRow, Row
from solar.errors import DataError

Located = tuple[str, Row | BadRow]
"""`file:line`, and the row or why there is none."""

SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".txt", ".text", ".md")
MAX_LINE_BYTES = 64 * 2**20
TEXT_DOCUMENT_CHARACTERS = 4_000
"""A plain text file is cut at blank lines into documents of at least this size."""
_MAX_RATIO = 500
_ALWAYS_ALLOWED_BYTES = 256 * 2**20


def find(path: Path) -> list[Path]:
    """The files of a file, folder or glob, in order of name. Raises `DataError` if there is none."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and _kind(file) in SUFFIXES]
    else:
        root = Path(path.anchor or ".")
        found = [file for file in root.glob(str(path.relative_to(path.anchor))) if file.is_file()]
    if not found:
        raise DataError(
            f"{path}: no such file, expected a file, a folder or a glob of {', '.join(SUFFIXES)} (.gz, .zst)"
        )
    return sorted(found)


def read(file: Path) -> Iterator[Located]:
    """The rows of one file. Raises `DataError` for a kind of file that is not known."""
    kind = _kind(file)
    if kind == ".parquet":
        yield from _parquet(file)
    elif kind in (".txt", ".text", ".md"):
        yield from _text(file)
    elif kind in (".jsonl", ".ndjson", ".json"):
        yield from _json_array(file) if kind == ".json" and _is_array(file) else _json_lines(file)
    else:
        raise DataError(f"{file}: unknown kind of file, expected {', '.join(SUFFIXES)} (also .gz, .zst)")


def _kind(file: Path) -> str:
    """The suffix that says what is in a file, behind the one that says how it is compressed.

    >>> _kind(Path("a/b.jsonl.gz"))
    '.jsonl'
    """
    return (Path(file.stem) if file.suffix in (".gz", ".zst") else file).suffix.lower()


class _Limited(io.RawIOBase):
    """A decompressed stream that refuses to be a bomb."""

    def __init__(self, stream: Any, file: Path) -> None:
        self._stream = stream
        self._file = file
        self._limit = max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * file.stat().st_size)
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._stream.read(min(len(buffer), 2**20))
        buffer[: len(read)] = read
        self._done += len(read)
        if self._done > self._limit:
            raise DataError(
                f"{self._file}: it unpacks to over {_MAX_RATIO} times its size; unpack it yourself if you trust it"
            )
        return len(read)


def _open(file: Path) -> BinaryIO:
    if file.suffix == ".gz":
        return io.BufferedReader(_Limited(gzip.open(file, "rb"), file), 2**20)
    if file.suffix == ".zst":
        return io.BufferedReader(_Limited(pyarrow.input_stream(str(file), compression="zstd"), file), 2**20)
    return file.open("rb", buffering=2**20)


def lines(file: Path) -> Iterator[tuple[int, bytes | BadRow]]:
    """Numbered lines without their ends, the mark that some editors put in front, and blank ones."""
    with _open(file) as stream:
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
    with _open(file) as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _json_array(file: Path) -> Iterator[Located]:
    """A file that is one JSON array; the only kind that is read whole."""
    with _open(file) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf")
    value = parse(b'{"rows": ' + content + b"}")
    if isinstance(value, BadRow):
        yield f"{file}:1", value
        return
    for number, row in enumerate(value["rows"], 1):
        wrong = BadRow("wrong_type", f"found a {type(row).__name__}, expected an object")
        yield f"{file} item {number}", row if isinstance(row, dict) else wrong


def _parquet(file: Path) -> Iterator[Located]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file} row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        yield f"{file} row {number + 1}", BadRow("damaged_file", f"not a readable Parquet file ({error})")


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
