"""A full disk or a forbidden folder, in one line: the user mends it, so it is no bug."""

import errno
import re
from pathlib import Path

from solar.errors import SolarError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_FULL_IN_WORDS = re.compile(r"No space left on device|Disk quota exceeded|File too large")
"""What safetensors, torch and pyarrow write into exceptions of their own."""


def disk_problem(error: BaseException, folder: Path | None = None) -> str | None:
    """File, reason and way out, if the system refused to write or read a file; None for any other error.

    `folder` is named where the error names no file, as when the disk is full.

    >>> disk_problem(OSError(errno.ENOSPC, "No space left on device"), Path("a"))
    'a: No space left on device; free some space, or choose another folder with paths.root=DIR'
    >>> disk_problem(PermissionError(errno.EACCES, "Permission denied", "a/b"))
    'a/b: Permission denied; change its permissions, or choose another folder with paths.root=DIR'
    """
    if isinstance(error, SolarError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    in_words = _FULL_IN_WORDS.search(str(error))
    if number not in _FULL | _FORBIDDEN and in_words is None:
        return None
    named = error.filename if isinstance(error, OSError) else None
    place = str(named or folder or "")
    reason = error.strerror if isinstance(error, OSError) and number is not None else in_words and in_words[0]
    way_out = "change its permissions" if number in _FORBIDDEN else "free some space"
    return f"{place + ': ' if place else ''}{reason}; {way_out}, or choose another folder with paths.root=DIR"
