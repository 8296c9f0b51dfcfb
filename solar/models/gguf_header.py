"""Walk through the header of a GGUF file before a library reads it: every count must fit into the file.

The format (version 2 and 3): magic, version, counts of tensors and of keys, the keys with their values, the tensors'
names, shapes, types and offsets, then their data.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import NoReturn

from solar.errors import StageError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_LENGTH_BYTES = 8
_LEAST_KEY_BYTES = 13
"""A key of no letters: its length, its type, and one byte."""
_LEAST_TENSOR_BYTES = 24
_MOST_DIMENSIONS = 8
_MOST_NESTED = 4


def check_header(path: Path) -> None:
    """Raises `StageError` for a header that does not fit into its file. Takes no memory, whatever the header says."""
    size = path.stat().st_size
    if size < 24:
        _refuse(path, f"{size} bytes found, expected at least 24")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != _MAGIC:
            _refuse(path, f"begins with {content[:4]!r}, expected {_MAGIC!r}")
        version = int.from_bytes(content[4:8], "little")
        order = "<" if version & 0xFFFF else ">"
        _Walk(path, content, order).whole()


class _Walk:
    """A place in the header that only moves forward, and never out of the file."""

    def __init__(self, path: Path, content: mmap.mmap, order: str) -> None:
        self.path, self.content, self.order = path, content, order
        self.place = len(_MAGIC)

    def whole(self) -> None:
        version = self.number("I", "version")
        if version not in _VERSIONS:
            _refuse(self.path, f"version {version} found, expected one of {_VERSIONS}")
        tensors, keys = self.number("Q", "tensor count"), self.number("Q", "key count")
        self.fits(tensors, _LEAST_TENSOR_BYTES, "tensors")
        self.fits(keys, _LEAST_KEY_BYTES, "keys")
        for _ in range(keys):
            self.text("a key's name")
            self.value(self.number("I", "type of a value"))
        for _ in range(tensors):
            self.tensor()

    def number(self, form: str, what: str) -> int:
        start = self.place
        self.skip(struct.calcsize(form), what)
        value: int = struct.unpack(self.order + form, self.content[start : self.place])[0]
        return value

    def skip(self, count: int, what: str) -> None:
        if self.place + count > len(self.content):
            _refuse(self.path, f"{what} of {count} bytes at byte {self.place}, but the file ends before")
        self.place += count

    def fits(self, count: int, least_bytes: int, what: str) -> None:
        if count * least_bytes > len(self.content) - self.place:
            _refuse(self.path, f"{count} {what} announced, more than the rest of the file can hold")

    def text(self, what: str) -> None:
        self.skip(self.number("Q", f"length of {what}"), what)

    def value(self, kind: int, nested: int = 0) -> None:
        if kind == _STRING:
            self.text("a text")
        elif kind == _ARRAY and nested < _MOST_NESTED:
            self.array(nested)
        elif kind in _SCALAR_BYTES:
            self.skip(_SCALAR_BYTES[kind], "a number")
        else:
            _refuse(self.path, f"type {kind} of a value at byte {self.place} found, expected 0 to 12")

    def array(self, nested: int) -> None:
        kind, count = self.number("I", "type of a list"), self.number("Q", "length of a list")
        if kind in _SCALAR_BYTES:
            self.skip(count * _SCALAR_BYTES[kind], "a list")
            return
        self.fits(count, _LENGTH_BYTES, "items of a list")
        for _ in range(count):
            self.value(kind, nested + 1)

    def tensor(self) -> None:
        self.text("a tensor's name")
        dimensions = self.number("I", "dimensions of a tensor")
        if dimensions > _MOST_DIMENSIONS:
            _refuse(self.path, f"{dimensions} dimensions of a tensor found, expected at most {_MOST_DIMENSIONS}")
        elements = math.prod(self.number("Q", "a size") for _ in range(dimensions))
        self.number("I", "type of a tensor")
        offset = self.number("Q", "offset of a tensor")
        if offset > len(self.content) or elements > 8 * len(self.content):  # the smallest types take a bit or more
            _refuse(self.path, f"a tensor of {elements} numbers at offset {offset} does not fit into the file")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise StageError(f"{path}: not a GGUF file, or cut short ({reason}); fetch it again")
