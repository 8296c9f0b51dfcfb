"""The order of rows: a pure function of (data, seed, position), so that resuming is one integer.

Every source is read in epochs; each epoch is a permutation of the source's rows that can be evaluated at any place (a
Feistel network, so nothing is stored). Sources are merged by tokens: `Mixture` says at what rate each source's tokens
flow, a row is due at the moment when its source has delivered half of it, and rows are read in the order they are due.
Realised shares are therefore off by at most a row a source, wherever the stream is cut. A source that has been read
`max_epochs` times is left out and the others share its part; from `switches` on, other weights hold.
"""

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from solar.data.order.flow import Flow, flows
from solar.data.store.header import Mixture, SourceRows
from solar.errors import DataError

if TYPE_CHECKING:
    from solar.data.store.dataset import TokenDataset

Ints = npt.NDArray[np.int64]
_CHUNK = 1024
"""Positions that are worked out together."""


class Permutation:
    """A random order of 0 to n - 1 that is computed where it is looked at.

    >>> order = Permutation(10, "seed")
    >>> sorted(order.take(0, 10).tolist()) == list(range(10))
    True
    >>> order.take(4, 2).tolist() == order.take(0, 10).tolist()[4:6]
    True
    """

    def __init__(self, size: int, *key: object) -> None:
        self.size = size
        digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
        self._keys = np.frombuffer(digest, "<u8")
        self._half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)

    def take(self, start: int, count: int) -> Ints:
        """Its values at places `start` to `start + count`."""
        values = self._shuffle(np.arange(start, start + count, dtype=np.uint64))
        while (outside := values >= self.size).any():  # the network covers up to 4 n numbers: walk back into 0 .. n - 1
            values[outside] = self._shuffle(values[outside])
        return values.astype(np.int64)

    def _shuffle(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(32))) & self._mask)
        return (left << self._half) | right


class _Source:
    """The endless row sequence of one source, and how many tokens lie before each of its rows."""

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
        """All but the cache, which cannot be sent to a worker that is started by spawn or forkserver."""
        return {name: value for name, value in self.__dict__.items() if name != "_middles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._middles = lru_cache(maxsize=4)(self._middles_of)

    def permutation(self, epoch: int) -> Permutation:
        return Permutation(self.rows, self._seed, self._name, epoch)

    def _middles_of(self, epoch: int) -> npt.NDArray[np.float64]:
        tokens = self._row_tokens[self.permutation(epoch).take(0, self.rows)].astype(np.float64)
        return np.cumsum(tokens) - tokens / 2

    def middle(self, first: int, last: int) -> npt.NDArray[np.float64]:
        """Tokens of this source before the middle of each of its rows `first` to `last`."""
        numbers = np.arange(first, last, dtype=np.int64)
        if self._uniform:
            middles: npt.NDArray[np.float64] = (numbers + np.float64(0.5)) * (self.tokens / self.rows)
            return middles
        epochs = numbers // self.rows
        found = np.empty(len(numbers))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = epoch * self.tokens + self._middles(int(epoch))[numbers[here] % self.rows]
        return found

    def count_before(self, tokens: float) -> int:
        """Rows whose middle lies before that many tokens of this source."""
        epoch = int(tokens // self.tokens)
        rest = tokens - epoch * self.tokens
        if self._uniform:
            return epoch * self.rows + max(0, int(np.ceil(rest * self.rows / self.tokens - 0.5)))
        return epoch * self.rows + int(np.searchsorted(self._middles(epoch), rest))

    def numbers(self, first: int, last: int) -> Ints:
        """Row numbers in the split of this source's rows `first` to `last`, over epochs."""
        parts = []
        while first < last:
            epoch, start = divmod(first, self.rows)
            count = min(last - first, self.rows - start)
            parts.append(self.permutation(epoch).take(start, count) + self.place.start)
            first += count
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


class Order:
    """Which row stands at which position of training."""

    def __init__(
        self, mixture: Mixture, places: dict[str, SourceRows], row_tokens: npt.NDArray[Any], seed: int
    ) -> None:
        self._row_tokens = row_tokens
        self._places = places
        self._asked = flows(replace(mixture, max_epochs={}), {name: place.tokens for name, place in places.items()})
        self._sources = [_Source(name, place, row_tokens, seed) for name, place in places.items()]
        self._flows: list[Flow] = flows(mixture, {name: place.tokens for name, place in places.items()})
        self._chunk = lru_cache(maxsize=4)(self._chunk_of)
        ends = [flow.end for flow in self._flows]
        self._last_moment = sum(ends)
        """Tokens read in all when the last source has reached its cap; infinite where one has none."""
        self._totals = [] if max(ends) == np.inf else list(map(self._count, range(len(ends)), ends))
        self.total_rows: int | None = sum(self._totals) if self._totals else None
        """Rows in all, if every source may be read only so often; None if the stream is endless."""
        self.total_tokens: float | None = self._last_moment if self._totals else None
        self.tokens_per_epoch = sum(place.tokens for place in places.values())
        rows = self.position_at_tokens(self.tokens_per_epoch)
        self.rows_per_epoch = rows if self.total_rows is None else min(rows, self.total_rows)
        """Rows that hold as many tokens as the data: each exactly once, where sources are drawn by their size."""

    def __getstate__(self) -> dict[str, Any]:
        """All but the cache, which cannot be sent to a worker that is started by spawn or forkserver."""
        return {name: value for name, value in self.__dict__.items() if name != "_chunk"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._chunk = lru_cache(maxsize=4)(self._chunk_of)

    @classmethod
    def of(cls, dataset: "TokenDataset", seed: int) -> "Order":
        """The training order of a split."""
        return cls(dataset.header.mixture, dataset.split.sources, dataset.row_tokens, seed)

    def rows(self, start: int, count: int) -> Ints:
        """Row numbers at positions `start` to `start + count`. Raises `DataError` beyond the last."""
        if self.total_rows is not None and start + count > self.total_rows:
            raise DataError(
                f"max_epochs: the data ends after {self.total_rows:,} rows, position {start + count:,} was asked for; "
                "allow more epochs or train for less"
            )
        chunks = range(start // _CHUNK, (start + count - 1) // _CHUNK + 1)
        found = np.concatenate([self._chunk(chunk) for chunk in chunks]) if count else np.empty(0, np.int64)
        return found[start - (start // _CHUNK) * _CHUNK :][:count]

    def position_at_tokens(self, tokens: float) -> int:
        """How many rows have been read when that many tokens have been."""
        return sum(self._count_at(tokens))

    def asked(self, rows: int) -> dict[str, float]:
        """The share of tokens that the mixture asks of each source among the first rows: switches in, caps aside."""
        tokens = float(max(1, self._row_tokens[self.rows(0, rows)].sum()))
        return {name: flow.delivered(tokens) / tokens for name, flow in zip(self._places, self._asked, strict=True)}

    def shares(self, start: int, count: int) -> dict[str, float]:
        """The share of tokens that each source really had at these positions."""
        numbers = self.rows(start, count)
        tokens = self._row_tokens[numbers].astype(np.int64)
        total = max(1, int(tokens.sum()))
        return {
            name: float(tokens[(numbers >= place.start) & (numbers < place.stop)].sum() / total)
            for name, place in self._places.items()
        }

    def _count(self, source: int, delivered: float) -> int:
        return self._sources[source].count_before(delivered) if self._sources[source].rows else 0

    def _count_at(self, tokens: float) -> list[int]:
        """Rows of each source that are due before the moment when `tokens` tokens have been read in all."""
        if tokens >= self._last_moment:
            return list(self._totals)  # what is delivered may fall a hair short of the caps
        counts = []
        for number, flow in enumerate(self._flows):
            count = self._count(number, flow.delivered(tokens))
            while count and self._due(number, count - 1, count)[0] >= tokens:  # rounding of the two directions
                count -= 1
            while self._due(number, count, count + 1)[0] < tokens:
                count += 1
            counts.append(count)
        return counts

    def _due(self, source: int, first: int, last: int) -> npt.NDArray[np.float64]:
        if not self._sources[source].rows:
            return np.full(last - first, np.inf)
        return self._flows[source].due(self._sources[source].middle(first, last))

    def _chunk_of(self, chunk: int) -> Ints:
        first, last = chunk * _CHUNK, (chunk + 1) * _CHUNK
        if self.total_rows is not None:
            last = min(last, self.total_rows)
        begin, end = self._count_at(self._moment(first, after=False)), self._count_at(self._moment(last, after=True))
        due = [self._due(source, *span) for source, span in enumerate(zip(begin, end, strict=True))]
        numbers = [
            source.numbers(*span) for source, span in zip(self._sources, zip(begin, end, strict=True), strict=True)
        ]
        in_order = np.argsort(np.concatenate(due), kind="stable")
        return np.concatenate(numbers)[in_order][first - sum(begin) :][: last - first]

    def _moment(self, position: int, after: bool) -> float:
        """A moment at which at most (`after`: at least) `position` rows are due, and not many fewer (more)."""
        rows_per_token = [source.rows / source.tokens if source.tokens else 0.0 for source in self._sources]

        def expected(tokens: float) -> float:
            return sum(rate * flow.delivered(tokens) for rate, flow in zip(rows_per_token, self._flows, strict=True))

        low, high = 0.0, 1.0
        while expected(high) < position and high < self._last_moment:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) / 2
            low, high = (middle, high) if expected(middle) < position else (low, middle)
        step = 1.0
        while low > 0 and not after and self.position_at_tokens(low) > position:
            low, step = max(0.0, low - step), step * 2
        while after and self.position_at_tokens(low) < position:
            low, step = low + step, step * 2
        return low
