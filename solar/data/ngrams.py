"""Which texts share a run of words with an evaluation set, in memory that depends on the evaluation sets alone."""

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]
SHORTEST = 8
"""Words an evaluation text must have to be compared at all; shorter ones recur by chance."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"\w+")


class NgramIndex:
    """Runs of `size` words of evaluation texts; a text between 8 and `size` words long counts as one run."""

    def __init__(self, texts: Iterable[tuple[str, str]], size: int) -> None:
        """`texts`: (name of the evaluation set, text)."""
        self.size = size
        self.skipped = 0
        """Evaluation texts too short to compare."""
        names: list[str] = []
        parts: dict[int, list[Hashes]] = {}
        owners: dict[int, list[npt.NDArray[np.uint16]]] = {}
        for name, text in texts:
            if name not in names:
                names.append(name)
            hashed = _words(text)
            length = min(size, len(hashed))
            if length < SHORTEST:
                self.skipped += 1
                continue
            runs = _runs(hashed, length)
            parts.setdefault(length, []).append(runs)
            owners.setdefault(length, []).append(np.full(len(runs), names.index(name), np.uint16))
        self._names = names
        self._runs: dict[int, tuple[Hashes, npt.NDArray[np.uint16]]] = {}
        for length, found in parts.items():
            runs, first = np.unique(np.concatenate(found), return_index=True)
            self._runs[length] = runs, np.concatenate(owners[length])[first]

    def __len__(self) -> int:
        return sum(len(runs) for runs, _ in self._runs.values())

    def overlap(self, text: str) -> tuple[str, str] | None:
        """The evaluation set that a text overlaps, and the words they share; None if there is none.

        >>> index = NgramIndex([("exam", "one two three four five six seven eight nine ten")], size=8)
        >>> index.overlap("So: Two three, four five six seven eight NINE, and so on.")
        ('exam', 'Two three, four five six seven eight NINE')
        >>> index.overlap("two three four five, six seven") is None
        True
        """
        hashed = _words(text)
        for length, (known, owners) in self._runs.items():
            runs = _runs(hashed, length)
            if not len(runs):
                continue
            places = np.minimum(np.searchsorted(known, runs), len(known) - 1)
            hits = np.flatnonzero(known[places] == runs)
            if len(hits):
                words = list(_WORD.finditer(text))[hits[0] : hits[0] + length]
                return self._names[owners[places[hits[0]]]], text[words[0].start() : words[-1].end()]
        return None


def _words(text: str) -> Hashes:
    """A number for each word; case and punctuation do not matter."""
    return np.fromiter(map(_hash, _WORD.findall(text.lower())), np.uint64)


@lru_cache(maxsize=2**18)
def _hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode("utf-8", "replace"))


def _runs(words: Hashes, length: int) -> Hashes:
    """A number for each run of `length` neighbouring words."""
    count = max(0, len(words) - length + 1)
    found = np.zeros(count, np.uint64)
    for place in range(length):
        found = found * _BASE + words[place : place + count]
    return found
