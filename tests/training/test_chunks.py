"""Easy-to-hard chunks: worked by hand."""

import numpy as np
import pytest

from solar.config.preference import ChunkBy, ChunkPairsConfig
from solar.errors import ConfigError, DataError
from solar.training.chunks import chunk_numbers

MARGINS = np.array([-1.0, 3.0, 0.5, -2.0, 2.0, 0.5])
SOURCES = {"a": (0, 4), "b": (4, 6)}


def _chunks(by, shares, margins=MARGINS):
    return chunk_numbers(ChunkPairsConfig(by=by, shares=shares, data="pairs"), margins, SOURCES).tolist()


def test_the_largest_margins_come_first_and_every_pair_is_in_one_chunk():
    # easy to hard: 3 (row 1), 2 (4), 0.5 (2), 0.5 (5), -1 (0), -2 (3)
    assert _chunks(ChunkBy.margin, [1 / 3, 1 / 3, 1 / 3]) == [3, 1, 2, 3, 1, 2]
    assert _chunks(ChunkBy.margin, [0.5, 0.5]) == [2, 1, 1, 2, 1, 2]


def test_the_source_that_is_ranked_right_most_often_comes_first():
    # a: 2 of 4 are above 0, b: 2 of 2
    assert _chunks(ChunkBy.accuracy, [0.5, 0.5]) == [2, 2, 2, 2, 1, 1]


def test_as_many_steps_as_sources_are_needed_and_no_chunk_is_empty():
    with pytest.raises(ConfigError, match="found 3 for the 2 sources of pairs"):
        _chunks(ChunkBy.accuracy, [1 / 3] * 3)
    with pytest.raises(DataError, match="chunk 1 of 2 has no pair"):
        _chunks(ChunkBy.margin, [0.01, 0.99])
