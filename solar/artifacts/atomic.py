"""Files that are replaced whole, and forced to the disk."""

import os
import secrets
import time
from pathlib import Path

from solar.weights.digest import flush

_DEAD_AFTER_SECONDS = 3600
"""Writing one of these files takes less than a second."""


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by one that is on the disk before it takes the name. Removes what killed writers of it left."""
    for left in left_by_writers(path.parent, path.name):
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    # A new file, and never one that somebody has put there: no link is followed.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def left_by_writers(folder: Path, name: str = "*.json") -> list[Path]:
    """Files that a killed `write_atomically` of `name` (a pattern) left in a folder."""
    before = time.time() - _DEAD_AFTER_SECONDS
    found = [path for path in folder.glob(f".{name}.[0-9]*") if not path.is_symlink() and path.is_file()]
    return [path for path in found if path.stat().st_mtime < before]
