"""Rows of a JSON array, one after the other: memory holds a part of the file, however long the array is."""

import json
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from solar.data.read.json_rows import DECODER, too_many_values
from solar.data.read.lines import MAX_LINE_BYTES
from solar.data.read.messages import BadRow, Located, Row
from solar.data.read.unpack import open_unpacked

_CHUNK_BYTES = 2**22
_LONGEST_LITERAL = 9
"""`-Infinity`; an error this close to the end of the text may come from a cut."""
_REST = "; the rest of the array is not read"


def is_array(file: Path) -> bool:
    """Whether the first character of a file begins a JSON array."""
    with open_unpacked(file) as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def json_array(file: Path) -> Iterator[Located]:
    """The rows of a file that is a JSON array. The first item that cannot be read is the last that is looked at."""
    with open_unpacked(file) as stream:
        items = _Items(stream)
        number = 0
        while True:
            number += 1
            try:
                row = items.next()
            except BadRow as error:
                yield f"{file} item {number}", BadRow(error.reason, f"{error}{_REST}")
                return
            except (OSError, EOFError, zlib.error) as error:
                yield f"{file} item {number}", BadRow("damaged_file", f"the compressed file is damaged: {error}")
                return
            if row is None:
                return
            yield f"{file} item {number}", row


class _Items:
    """Reads a stream that begins with `[`, an item at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decode = getincrementaldecoder("utf-8-sig")().decode
        self._text, self._place, self._ended = "", 0, False
        self._read_bytes = 0
        self._before = "["
        """What stands before the next item."""

    def next(self) -> Row | BadRow | None:
        """The next item; None after the last. Raises `BadRow` where the text is no array of JSON values."""
        if self._before == "[":
            self._expect("[")
        if self._skip_space() == "]":
            self._place += 1
            if self._skip_space():
                raise BadRow("invalid_json", "text follows the array")
            return None
        if self._before == ",":
            self._expect(",")
            self._skip_space()
        self._before = ","
        value = self._value()
        wrong = BadRow("wrong_type", f"found a {type(value).__name__}, expected an object")
        return value if isinstance(value, dict) else wrong

    def _value(self) -> object:
        """A value may end where the text that was read ends, so reading goes on until something follows the value."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._place)
                if end < len(self._text) or self._ended:
                    self._place = end
                    return value
            except RecursionError:
                raise BadRow("too_deep", "brackets nested too deeply") from None
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_LITERAL
                if self._ended or not cut_off:
                    raise BadRow("invalid_json", f"no JSON value ({error.msg})") from None
            held = len(self._text) - self._place
            if held > MAX_LINE_BYTES:
                raise BadRow("too_long", f"an item of more than {MAX_LINE_BYTES // 2**20} MiB")
            if problem := too_many_values(self._text[self._place :].encode()):
                raise problem
            self._more(max(held, 1))

    def _skip_space(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in " \t\n\r":
                    return self._text[self._place]
                self._place += 1
            if self._ended:
                return ""
            self._more(1)

    def _expect(self, character: str) -> None:
        found = self._skip_space()
        if found != character:
            raise BadRow(
                "invalid_json", f"found {found!r}, expected {character!r}" if found else "the array has no end"
            )
        self._place += 1

    def _more(self, wanted: int) -> None:
        """Read as much again as is held, so that a long item is parsed a few times, not once a chunk."""
        data = self._stream.read(max(_CHUNK_BYTES, wanted))
        self._ended = not data
        try:
            text = self._decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise BadRow("invalid_utf8", f"byte {self._read_bytes + error.start + 1} is not UTF-8") from None
        self._read_bytes += len(data)
        self._text, self._place = self._text[self._place :] + text, 0
