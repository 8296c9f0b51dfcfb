"""The order of rows: exact, repeatable from any position, and in the proportions that were asked for."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from solar.data.order.order import Order
from solar.data.order.permutation import Permutation
from solar.data.store.dataset import TokenDataset
from solar.data.store.header import Mixture, SourceRows
from solar.errors import DataError


def _places(*lengths: list[int]) -> tuple[dict[str, SourceRows], np.ndarray]:
    """Sources a, b, ... with rows of these numbers of tokens."""
    places, start = {}, 0
    for name, tokens in zip("abcdef", lengths, strict=False):
        places[name] = SourceRows(start, start + len(tokens), sum(tokens))
        start += len(tokens)
    return places, np.array([token for tokens in lengths for token in tokens], np.uint32)


def _by_size(places: dict[str, SourceRows]) -> dict[str, float]:
    total = sum(place.tokens for place in places.values())
    return {name: place.tokens / total for name, place in places.items()}


lengths = st.lists(st.lists(st.integers(1, 50), min_size=3, max_size=60), min_size=1, max_size=4)


@given(lengths, st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_every_row_occurs_exactly_once_an_epoch(tokens, seed):
    """T-C8."""
    places, row_tokens = _places(*tokens)
    order = Order(Mixture(_by_size(places)), places, row_tokens, seed)
    rows = len(row_tokens)
    assert order.rows_per_epoch == rows and order.total_rows is None
    for epoch in range(3):
        assert sorted(order.rows(epoch * rows, rows).tolist()) == list(range(rows))


@given(lengths, st.integers(0, 3), st.lists(st.integers(1, 300), min_size=1, max_size=6), st.data())
@settings(deadline=None, max_examples=25)
def test_any_way_of_asking_gives_the_same_rows(tokens, seed, counts, data):
    """T-C8. Workers, ranks and restarts ask for different stretches; the stream does not notice."""
    places, row_tokens = _places(*tokens)
    weights = {name: data.draw(st.floats(0.01, 1)) for name in places}
    whole = Order(Mixture(weights), places, row_tokens, seed).rows(0, sum(counts))
    start = 0
    for count in counts:
        restarted = Order(Mixture(weights), places, row_tokens, seed)
        assert restarted.rows(start, count).tolist() == whole[start : start + count].tolist()
        start += count


def test_chunks_of_the_stream_meet_without_gap_or_overlap():
    rng = np.random.default_rng(0)
    places, row_tokens = _places(*[rng.integers(1, 500, size).tolist() for size in (700, 90, 11)])
    order = Order(Mixture(_by_size(places)), places, row_tokens, 0)
    assert np.bincount(order.rows(0, 801 * 20)).tolist() == [20] * 801


@pytest.mark.parametrize("ragged", [False, True])
def test_shares_are_within_half_a_percent_over_a_million_tokens(ragged):
    rng = np.random.default_rng(1)
    sizes = (900, 400, 77)
    tokens = [rng.integers(20, 513, n).tolist() if ragged else [512] * n for n in sizes]
    places, row_tokens = _places(*tokens)
    asked = {"a": 0.25, "b": 0.7, "c": 0.05}
    order = Order(Mixture(asked), places, row_tokens, 0)
    for start in (0, 12_345, 100_000):
        count = order.position_at_tokens(1_000_000)
        found = order.shares(start, count)
        assert all(abs(found[name] - asked[name]) < 0.005 for name in asked)
        assert abs(int(row_tokens[order.rows(start, count)].sum()) - 1_000_000) < 20_000


def test_within_any_source_each_epoch_holds_every_row_once():
    places, row_tokens = _places([10] * 7, [10] * 31)
    order = Order(Mixture({"a": 0.5, "b": 0.5}), places, row_tokens, 0)
    rows = order.rows(0, 700)
    of_a = [row for row in rows.tolist() if row < 7]
    assert all(sorted(of_a[start : start + 7]) == list(range(7)) for start in range(0, 343, 7))


def test_a_source_at_its_cap_is_left_out_and_the_others_keep_their_proportion():
    places, row_tokens = _places([10] * 20, [10] * 300, [10] * 300)
    order = Order(Mixture({"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 2.5}), places, row_tokens, 0)
    rows = order.rows(0, 600)
    assert np.bincount(rows[rows < 20]).sum() == 50
    assert set(np.bincount(rows[rows < 20])) == {2, 3}
    late = order.shares(150, 200)
    assert late["a"] == 0 and late["b"] == pytest.approx(0.6, abs=0.01)
    assert order.total_rows is None


def test_data_with_caps_everywhere_ends_and_says_so():
    places, row_tokens = _places([10] * 20, [7] * 30)
    order = Order(Mixture({"a": 0.5, "b": 0.5}, {"a": 1, "b": 2}), places, row_tokens, 0)
    assert order.total_rows == 80
    assert np.bincount(order.rows(0, 80)).tolist() == [1] * 20 + [2] * 30
    with pytest.raises(DataError, match="ends after 80 rows, position 81 was asked for"):
        order.rows(80, 1)


def test_weights_change_at_the_token_where_a_switch_stands():
    places, row_tokens = _places([10] * 5000, [10] * 5000, [10] * 5000)
    switches = [(20_000, {"b": 0.5, "c": 0.5}), (30_000, {"c": 1.0})]
    order = Order(Mixture({"a": 1.0}, {}, switches), places, row_tokens, 0)
    assert order.shares(0, 2000) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert order.shares(2000, 1000) == {"a": 0.0, "b": 0.5, "c": 0.5}
    assert order.shares(3000, 1000) == {"a": 0.0, "b": 0.0, "c": 1.0}
    assert order.requested_shares(2000) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert order.requested_shares(4000) == {"a": 0.5, "b": 0.125, "c": 0.375}


def test_what_is_asked_of_a_capped_source_is_what_it_would_give_without_the_cap():
    places, row_tokens = _places([10] * 100, [10] * 100)
    order = Order(Mixture({"a": 0.5, "b": 0.5}, {"a": 0.5}), places, row_tokens, 0)
    assert order.requested_shares(150) == {"a": 0.5, "b": 0.5}
    assert order.shares(0, 150) == {"a": 1 / 3, "b": 2 / 3}


def test_another_seed_is_another_order_and_epochs_differ():
    places, row_tokens = _places([10] * 100)
    first, second = (Order(Mixture({"a": 1.0}), places, row_tokens, seed) for seed in (0, 1))
    assert first.rows(0, 100).tolist() != second.rows(0, 100).tolist()
    assert first.rows(0, 100).tolist() != first.rows(100, 100).tolist()


@given(st.integers(1, 5000), st.integers())
def test_a_permutation_holds_every_number_once(size, key):
    assert sorted(Permutation(size, key).take(0, size).tolist()) == list(range(size))


def test_a_permutation_looks_random():
    """Neighbours are unrelated, and no number prefers a place: mean distance n / 3, mean value n / 2."""
    values = Permutation(100_003, "key").take(0, 100_003)
    assert np.abs(np.diff(values)).mean() == pytest.approx(100_003 / 3, rel=0.02)
    assert values[:20_000].mean() == pytest.approx(50_000, rel=0.02)


def test_orders_over_billions_of_rows_need_no_list_of_them():
    size = 2**33
    assert 0 <= Permutation(size, 0).take(size - 5, 5).max() < size


@given(lengths, st.lists(st.integers(1, 3), min_size=4, max_size=4), st.booleans(), st.integers(0, 3))
@example([[45, 1, 1]], [1] * 4, False, 0)  # 3 / 47 * 47 < 3
@settings(deadline=None, max_examples=60)
def test_capped_sources_are_read_to_their_last_row_and_no_further(tokens, caps, uniform, seed):
    """Where every source has a cap, roundings must not leave the last row undelivered, nor look for it for ever."""
    tokens = [[16] * len(rows) for rows in tokens] if uniform else tokens
    places, row_tokens = _places(*tokens)
    limits = dict(zip(places, map(float, caps), strict=False))
    order = Order(Mixture(_by_size(places), max_epochs=limits), places, row_tokens, seed)
    expected = [int(limits[name]) for name, place in places.items() for _ in range(place.stop - place.start)]
    assert order.total_rows == sum(expected)
    assert np.bincount(order.rows(0, order.total_rows), minlength=len(row_tokens)).tolist() == expected


PICKLED = """
import multiprocessing, sys
from solar.data.order.order import Order
from solar.data.store.dataset import TokenDataset

def first(dataset, order):
    return [dataset[row].input_ids.tolist() for row in order.rows(0, 5).tolist()]

if __name__ == "__main__":
    dataset = TokenDataset(sys.argv[1], "train")
    order = Order.of(dataset, 3)
    here = first(dataset, order)
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(first, (dataset, order)) == here, method
    print("alike")
"""


def test_a_worker_of_any_start_method_reads_the_same_rows(prepared, topics, tmp_path):
    folder = prepared([{"text": text} for text in topics[:20]]).folder
    (tmp_path / "program.py").write_text(PICKLED)
    command = [sys.executable, str(tmp_path / "program.py"), str(folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "alike\n"


def test_a_pickled_data_set_is_a_name_and_no_copy_of_its_rows(prepared, topics):
    folder = prepared([{"text": text} for text in topics[:20]]).folder
    assert len(pickle.dumps(TokenDataset(folder, "train"))) < 1000
