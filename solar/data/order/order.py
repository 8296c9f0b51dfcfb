"""The order of rows: a pure function of (data, seed, position), so that a resumed training needs one integer.

Each source is read in epochs, and each epoch is a permutation of the source's rows. The sources are merged by tokens:
`Mixture` gives the rate at which the tokens of each source flow. A row is due when its source has delivered the tokens
up to the middle of the row, and rows are read in the order in which they are due. So the realised shares differ from
the requested shares by at most a row a source, wherever the stream is cut. A source that has been read `max_epochs`
times is left out, and the others share its part. From each of the `switches` on, other weights hold.
"""

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from solar.data.order.flow import Flow, flows
from solar.data.order.permutation import Ints
from solar.data.order.source import Source
from solar.data.store.header import Mixture, SourceRows
from solar.errors import DataError

if TYPE_CHECKING:
    from solar.data.store.dataset import TokenDataset

_CHUNK = 1024
"""Positions that are computed together."""


class Order:
    """Position of training -> number of a row in the split."""

    def __init__(
        self, mixture: Mixture, places: dict[str, SourceRows], row_tokens: npt.NDArray[Any], seed: int
    ) -> None:
        self._row_tokens = row_tokens
        self._places = places
        self._requested = flows(replace(mixture, max_epochs={}), {name: place.tokens for name, place in places.items()})
        self._sources = [Source(name, place, row_tokens, seed) for name, place in places.items()]
        self._flows: list[Flow] = flows(mixture, {name: place.tokens for name, place in places.items()})
        self._chunk = lru_cache(maxsize=4)(self._chunk_of)
        ends = [flow.end for flow in self._flows]
        self._last_moment = sum(ends)
        """Tokens of all sources when the last source reaches its cap; infinite if a source has no cap."""
        self._totals = [] if max(ends) == np.inf else list(map(self._count, range(len(ends)), ends))
        self.total_rows: int | None = sum(self._totals) if self._totals else None
        """Rows in all, if every source has a cap; None if the stream is endless."""
        self.total_tokens: float | None = self._last_moment if self._totals else None
        self.tokens_per_epoch = sum(place.tokens for place in places.values())
        rows = self.position_at_tokens(self.tokens_per_epoch)
        self.rows_per_epoch = rows if self.total_rows is None else min(rows, self.total_rows)
        """Rows that hold as many tokens as the data: each row once, if sources are drawn by their size."""

    def __getstate__(self) -> dict[str, Any]:
        """All but the cache, which cannot be pickled for a worker process."""
        return {name: value for name, value in self.__dict__.items() if name != "_chunk"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._chunk = lru_cache(maxsize=4)(self._chunk_of)

    @classmethod
    def of(cls, dataset: "TokenDataset", seed: int) -> "Order":
        """The training order of a split."""
        return cls(dataset.header.mixture, dataset.split.sources, dataset.row_tokens, seed)

    def rows(self, start: int, count: int) -> Ints:
        """Row numbers at positions `start` to `start + count`. Raises `DataError` beyond the last position."""
        if self.total_rows is not None and start + count > self.total_rows:
            raise DataError(
                f"max_epochs: the data ends after {self.total_rows:,} rows, position {start + count:,} was asked for; "
                "allow more epochs or train for less"
            )
        chunks = range(start // _CHUNK, (start + count - 1) // _CHUNK + 1)
        numbers = np.concatenate([self._chunk(chunk) for chunk in chunks]) if count else np.empty(0, np.int64)
        return numbers[start - (start // _CHUNK) * _CHUNK :][:count]

    def position_at_tokens(self, tokens: float) -> int:
        """Rows that are due before `tokens` tokens of all sources have been read."""
        return sum(self._count_at(tokens))

    def requested_shares(self, rows: int) -> dict[str, float]:
        """The shares of tokens that the mixture requests among the first `rows` rows, with switches, without caps."""
        tokens = float(max(1, self._row_tokens[self.rows(0, rows)].sum()))
        return {name: flow.delivered(tokens) / tokens for name, flow in zip(self._places, self._requested, strict=True)}

    def shares(self, start: int, count: int) -> dict[str, float]:
        """The shares of tokens that the sources have at positions `start` to `start + count`."""
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
        """Rows of each source that are due before `tokens` tokens of all sources have been read."""
        if tokens >= self._last_moment:
            return list(self._totals)  # rounding may leave the delivered tokens just below the caps
        counts = []
        for number, flow in enumerate(self._flows):
            count = self._count(number, flow.delivered(tokens))
            while count and self._due(number, count - 1, count)[0] >= tokens:  # the two directions round differently
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
        """Tokens of all sources at which at most (`after`: at least) `position` rows are due, and nearly `position`."""
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
