"""One source of a mixture as an endless sequence of rows."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from solar.data.order.permutation import Ints, Permutation
from solar.data.store.header import SourceRows


class Source:
    """The rows of one source, epoch after epoch, and the tokens of the source before each row."""

    def __init__(self, name: str, place: SourceRows, row_tokens: npt.NDArray[np.uint32], seed: int) -> None:
        self.place = place
        self.rows = place.stop - place.start
        self.tokens = place.tokens
        self._name = name
        self._seed = seed
        self._row_tokens = row_tokens[place.start : place.stop]
        self._uniform = bool(self.rows < 2 or (self._row_tokens[:-1] == self._row_tokens[0]).all())
        self._middles = lru_cache(maxsize=4)(self._middles_of)

    def __getstate__(self) -> dict[str, Any]:
        """All but the cache, which cannot be pickled for a worker process."""
        return {name: value for name, value in self.__dict__.items() if name != "_middles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._middles = lru_cache(maxsize=4)(self._middles_of)

    def permutation(self, epoch: int) -> Permutation:
        """The order of the rows in an epoch."""
        return Permutation(self.rows, self._seed, self._name, epoch)

    def _middles_of(self, epoch: int) -> npt.NDArray[np.float64]:
        tokens = self._row_tokens[self.permutation(epoch).take(0, self.rows)].astype(np.float64)
        return np.cumsum(tokens) - tokens / 2

    def middle(self, first: int, last: int) -> npt.NDArray[np.float64]:
        """Tokens of the source before the middle of each row from `first` to `last`, counted over epochs."""
        numbers = np.arange(first, last, dtype=np.int64)
        if self._uniform:
            uniform: npt.NDArray[np.float64] = (numbers + np.float64(0.5)) * (self.tokens / self.rows)
            return uniform
        epochs = numbers // self.rows
        middles = np.empty(len(numbers))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            middles[here] = epoch * self.tokens + self._middles(int(epoch))[numbers[here] % self.rows]
        return middles

    def count_before(self, tokens: float) -> int:
        """Rows whose middle lies within the first `tokens` tokens of the source."""
        epoch = int(tokens // self.tokens)
        rest = tokens - epoch * self.tokens
        if self._uniform:
            return epoch * self.rows + max(0, int(np.ceil(rest * self.rows / self.tokens - 0.5)))
        return epoch * self.rows + int(np.searchsorted(self._middles(epoch), rest))

    def numbers(self, first: int, last: int) -> Ints:
        """The numbers, in the split, of the rows from `first` to `last`, counted over epochs."""
        parts = []
        while first < last:
            epoch, start = divmod(first, self.rows)
            count = min(last - first, self.rows - start)
            parts.append(self.permutation(epoch).take(start, count) + self.place.start)
            first += count
        return np.concatenate(parts) if parts else np.empty(0, np.int64)
