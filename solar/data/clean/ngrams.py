"""Which texts share a run of words with an evaluation set, in memory that depends on the evaluation sets alone."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import xxhash

from solar.data.clean.words import plain

Hashes = npt.NDArray[np.uint64]
SHORTEST = 8
"""Words an evaluation text must have to be compared at all; shorter ones recur by chance."""
MOST_WORDS = 2**18
"""Words whose numbers are remembered, some 30 MB."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"\w+")


class NgramIndex:
    """Runs of `size` words of evaluation texts; a text between 8 and `size` words long counts as one run."""

    def __init__(self, rows: Iterable[tuple[str, Sequence[str]]], size: int) -> None:
        """`rows`: (name of the evaluation set, texts of one of its rows)."""
        self.size = size
        self._rows: Counter[str] = Counter()
        self._too_short: Counter[str] = Counter()
        names: list[str] = []
        parts: dict[int, list[Hashes]] = {}
        owners: dict[int, list[npt.NDArray[np.uint16]]] = {}
        for name, texts in rows:
            if name not in names:
                names.append(name)
            self._rows[name] += 1
            hashed = [words for text in texts if len(words := _words(plain(text))) >= SHORTEST]
            self._too_short[name] += not hashed
            for words in hashed:
                length = min(size, len(words))
                runs = _runs(words, length)
                parts.setdefault(length, []).append(runs)
                owners.setdefault(length, []).append(np.full(len(runs), names.index(name), np.uint16))
        self._names = names
        self._runs: dict[int, tuple[Hashes, npt.NDArray[np.uint16]]] = {}
        for length, found in parts.items():
            runs, first = np.unique(np.concatenate(found), return_index=True)
            self._runs[length] = runs, np.concatenate(owners[length])[first]

    def facts(self) -> dict[str, dict[str, int]]:
        """Evaluation set -> its rows, and how many of them are too short to compare."""
        return {name: {"rows": rows, "too_short": self._too_short[name]} for name, rows in self._rows.items()}

    def __len__(self) -> int:
        return sum(len(runs) for runs, _ in self._runs.values())

    def overlap(self, text: str) -> tuple[str, str] | None:
        """The evaluation set that a text overlaps, and the words they share; None if there is none.

        >>> index = NgramIndex([("exam", ["one two three four five six seven eight nine ten"])], size=8)
        >>> index.overlap("So: Two three, four five six seven eight NINE, and so on.")
        ('exam', 'two three, four five six seven eight nine')
        >>> index.overlap("two three four five, six seven") is None
        True
        """
        text = plain(text)
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


class _Known(dict[str, int]):
    """The number of each word, remembered for as many words as fit."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MOST_WORDS:
            self.clear()
        number = self[word] = xxhash.xxh3_64_intdigest(word.encode("utf-8", "replace"))
        return number


_number = _Known().__getitem__


def _words(text: str) -> Hashes:
    """A number for each word of a text that is `plain`."""
    return np.fromiter(map(_number, _WORD.findall(text)), np.uint64)


def _runs(words: Hashes, length: int) -> Hashes:
    """A number for each run of `length` neighbouring words: a polynomial in them, modulo 2**64.

    >>> _runs(np.array([1, 2, 3], np.uint64), 2).tolist() == [(n * int(_BASE) + n + 1) % 2**64 for n in (1, 2)]
    True
    """
    if len(words) < length:
        return np.zeros(0, np.uint64)
    return np.correlate(words, _powers(length), "valid")


@cache
def _powers(length: int) -> Hashes:
    return np.array([pow(int(_BASE), length - 1 - place, 2**64) for place in range(length)], np.uint64)
