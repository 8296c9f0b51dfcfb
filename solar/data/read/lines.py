"""The lines of a file, also of a compressed file, with a limit on their length."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from solar.data.read.messages import BadRow
from solar.data.read.unpack import open_unpacked

MAX_LINE_BYTES = 64 * 2**20
"""The largest line of text, and the largest row of a table."""


def lines(file: Path) -> Iterator[tuple[int, bytes | BadRow]]:
    """The lines with their numbers, without line ends and byte order mark. Blank lines are left out."""
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
