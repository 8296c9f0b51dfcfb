"""Rows of JSON lines."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solar.data.read.lines import lines
from solar.data.read.messages import BadRow, Located, Row

MAX_VALUES = 4_000_000
"""In one row. Lists, objects and keys take up to 250 bytes of memory each, texts little more than their length."""


def json_lines(file: Path) -> Iterator[Located]:
    """The rows of a file of JSON lines."""
    for number, line in lines(file):
        yield f"{file}:{number}", line if isinstance(line, BadRow) else parse(line)


def parse(line: bytes) -> Row | BadRow:
    """A JSON object as a row. Other values, repeated keys, NaN and infinities make a `BadRow`."""
    if problem := too_many_values(line):
        return problem
    try:
        value = DECODER.decode(line.decode("utf-8"))
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


def too_many_values(text: bytes) -> BadRow | None:
    """The refusal of a text whose values would take over a gigabyte of memory."""
    if len(text) > MAX_VALUES and sum(map(text.count, (b"[", b"{", b":"))) > max(MAX_VALUES, len(text) // 16):
        return BadRow("too_many_values", f"more than {MAX_VALUES:,} values, which would take over a gigabyte of memory")
    return None


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


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_finite)
"""Refuses what JSON does not allow, and repeated keys. Raises `BadRow`, or `ValueError` for other text."""
