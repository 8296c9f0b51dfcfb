"""Texts that repeat an earlier text, exactly or nearly."""

import hashlib
import re
from collections.abc import Callable

from solar.config.data import Deduplicate
from solar.data.clean.words import plain
from solar.errors import DataError

Seen = Callable[[str], bool]
"""Whether a text repeats an earlier text; a new text is remembered."""

THRESHOLD = 0.8
SHINGLE_WORDS = 5
_PERMUTATIONS = 128
_BANDS = 32
"""Only texts that agree in a band are compared; with 32 bands, almost every pair above the threshold is found."""


def seen_before(how: Deduplicate) -> Seen | None:
    """The function that finds duplicates, None for `none`. Raises `DataError` if minhash's library is missing."""
    return {Deduplicate.none: lambda: None, Deduplicate.exact: _exact, Deduplicate.minhash: _nearly}[how]()


def _exact() -> Seen:
    known: set[bytes] = set()

    def seen(text: str) -> bool:
        digest = hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=12).digest()
        before = len(known)
        known.add(digest)
        return len(known) == before

    return seen


def _nearly() -> Seen:
    try:
        import rensa  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise DataError("deduplicate: minhash needs rensa; `pip install 'solar[dedup]'`, or choose exact") from None
    index = rensa.RMinHashDeduplicator(THRESHOLD, _PERMUTATIONS, True, _BANDS, 0)

    def seen(text: str) -> bool:
        sketch = rensa.RMinHash(_PERMUTATIONS, 0)
        sketch.update(shingles(text))
        return not index.add(str(index.len()), sketch)

    return seen


def shingles(text: str) -> list[str]:
    """Every run of five words; a shorter text is one shingle.

    >>> shingles("A b c, d e f")
    ['a b c d e', 'b c d e f']
    """
    words = re.findall(r"\w+", plain(text))
    runs = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return list(dict.fromkeys(" ".join(words[start : start + SHINGLE_WORDS]) for start in runs))
