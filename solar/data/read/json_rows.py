"""Rows of JSON lines and JSON arrays."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solar.data.read.lines import lines
from solar.data.read.messages import BadRow, Located, Row
from solar.data.read.unpack import open_unpacked

MAX_VALUES = 4_000_000
"""In one row. Lists, objects and keys take up to 250 bytes of memory each, texts little more than their length."""


def json_lines(file: Path) -> Iterator[Located]:
    """The rows of a file of JSON lines."""
    for number, line in lines(file):
        yield f"{file}:{number}", line if isinstance(line, BadRow) else parse(line)


def parse(line: bytes) -> Row | BadRow:
    """A JSON object as a row. Other values, repeated keys, NaN and infinities make a `BadRow`."""
    if len(line) > MAX_VALUES and sum(map(line.count, (b"[", b"{", b":"))) > max(MAX_VALUES, len(line) // 16):
        return BadRow("too_many_values", f"more than {MAX_VALUES:,} values, which would take over a gigabyte of memory")
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
    row = dict(pairs)
    if len(row) != len(pairs):
        raise BadRow("duplicate_key", "a key occurs twice")
    return row


def _not_finite(literal: str) -> Any:
    raise BadRow("not_finite", f"{literal} is not JSON")


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise BadRow("not_finite", f"{literal[:20]} is too large for a number")
    return value


def is_array(file: Path) -> bool:
    """Whether the first character of a file begins a JSON array."""
    with open_unpacked(file) as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def json_array(file: Path) -> Iterator[Located]:
    """The rows of a file that is a JSON array. The whole file is read into memory."""
    with open_unpacked(file) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf")
    value = parse(b'{"rows": ' + content + b"}")
    if isinstance(value, BadRow):
        yield f"{file}:1", value
        return
    for number, row in enumerate(value["rows"], 1):
        wrong = BadRow("wrong_type", f"found a {type(row).__name__}, expected an object")
        yield f"{file} item {number}", row if isinstance(row, dict) else wrong
