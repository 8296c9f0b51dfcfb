"""Packing: no token lost, none twice, rows full."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solar.data.order.permutation import Permutation
from solar.data.pack import pack

lengths = st.lists(st.integers(1, 90), min_size=1, max_size=80)


def _covered(rows: list) -> Counter:
    return Counter((d, t) for row in rows for d, start, length in row.tolist() for t in range(start, start + length))


@given(lengths, st.integers(8, 40))
def test_every_token_is_in_exactly_one_row(tokens, width):
    wanted = Counter((d, t) for d, length in enumerate(tokens) for t in range(length))
    order = Permutation(len(tokens), "key")
    for packing in (pack.concatenate, pack.best_fit):
        rows = list(packing(np.array(tokens), order, width))
        assert _covered(rows) == wanted
        assert all(row["length"].sum() <= width for row in rows)


@given(lengths, st.integers(8, 40))
def test_concatenated_rows_are_full_but_for_the_last(tokens, width):
    rows = list(pack.concatenate(np.array(tokens), Permutation(len(tokens), 1), width))
    assert [row["length"].sum() for row in rows[:-1]] == [width] * (len(rows) - 1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80))
def test_best_fit_cuts_no_document_that_fits_a_row(tokens):
    rows = list(pack.best_fit(np.array(tokens), Permutation(len(tokens), 1), 40))
    assert sorted(length for row in rows for length in row["length"].tolist()) == sorted(tokens)


def test_best_fit_takes_the_fullest_row_that_has_room():
    """By hand, width 10: 7 leaves room for 3, 6 for 4; a 3 joins the 7, and a 4 after it would still fit the 6."""
    rows = list(pack.best_fit(np.array([7, 6, 3]), Permutation(3, "x"), 10))
    assert sorted(sorted(row["length"].tolist()) for row in rows) == [[3, 7], [6]]


def test_best_fit_wastes_little_on_real_lengths(topics):
    tokens = np.array([min(len(text) // 20, 512) + 1 for text in topics] * 10)
    rows = list(pack.best_fit(tokens, Permutation(len(tokens), 1), 512))
    assert tokens.sum() / (len(rows) * 512) > 0.97
    assert len(list(pack.one_each(tokens))) == len(tokens)


@pytest.mark.parametrize("group", [1, 2])
def test_without_packing_a_row_is_one_sample(group):
    rows = list(pack.one_each(np.array([3, 4, 5, 6]), group))
    assert [row["length"].tolist() for row in rows] == np.array([3, 4, 5, 6]).reshape(-1, group).tolist()
