"""Compressed files as streams of bytes, with a limit on their unpacked size."""

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow

from solar.config.source_files import compression
from solar.errors import DataError

MAX_RATIO = 500
ALWAYS_ALLOWED_BYTES = 256 * 2**20
_BUFFER_BYTES = 2**20


class Limited(io.RawIOBase):
    """A decompressed stream that raises `DataError` beyond 256 MiB and 500 times the size of the file."""

    def __init__(self, stream: Any, file: Path) -> None:
        self._stream = stream
        self._file = file
        self._limit = max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * file.stat().st_size)
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._stream.read(min(len(buffer), _BUFFER_BYTES))
        buffer[: len(read)] = read
        self._done += len(read)
        if self._done > self._limit:
            raise DataError(
                f"{self._file}: unpacks to over {MAX_RATIO} times its size; unpack it yourself if you trust it"
            )
        return len(read)


def open_unpacked(file: Path) -> BinaryIO:
    """The unpacked bytes of a file. Reading raises `DataError` where they outgrow the limit (`Limited`)."""
    if (packed := compression(file)) is None:
        return file.open("rb", buffering=_BUFFER_BYTES)
    stream: Any = gzip.GzipFile(file) if packed == ".gz" else pyarrow.input_stream(str(file), compression="zstd")
    return io.BufferedReader(Limited(stream, file), _BUFFER_BYTES)
