"""Parts of the data: every pair in exactly one, and the whole is what it was."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny import InOrder, MemoryRows, pair

from solar.config.duration import Duration
from solar.config.preference import DpoConfig
from solar.config.training import PretrainConfig
from solar.data.order.order import Order
from solar.data.store.header import Mixture, SourceRows
from solar.errors import DataError
from solar.training.batches.row_subset import chosen_rows
from solar.training.batches.steps import Budget

DATA = MemoryRows([pair(3, 2, 2, seed=n, sample=n) for n in range(11)])
DATA.split = SimpleNamespace(sources={"a": SimpleNamespace(start=0, stop=4), "b": SimpleNamespace(start=4, stop=11)})
ORDER = InOrder(DATA)


def _rows(**fields):
    chosen = chosen_rows(DpoConfig(**fields), DATA, ORDER)
    return chosen.rows(0, chosen.rows_per_epoch).tolist()


def test_parts_hold_every_pair_once():
    parts = [_rows(part=f"{number}/3") for number in (1, 2, 3)]
    assert sorted(row for part in parts for row in part) == list(range(11))
    assert [len(part) for part in parts] == [4, 3, 4]


def test_parts_by_shares_hold_every_pair_once():
    parts = [_rows(part=part) for part in ("0:0.2", "0.2:0.5", "0.5:1")]
    assert sorted(row for part in parts for row in part) == list(range(11))
    assert [len(part) for part in parts] == [2, 4, 5]


def test_a_chunk_holds_the_rows_that_the_other_stage_put_in_it():
    chosen = chosen_rows(DpoConfig(chunks="order", chunk=2), DATA, ORDER, np.array([1, 2, 1, 2] + [3] * 7))
    assert chosen.rows(0, chosen.rows_per_epoch).tolist() == [1, 3]


def test_without_a_selection_the_order_stays_itself():
    assert chosen_rows(DpoConfig(), DATA, ORDER) is ORDER
    assert chosen_rows(PretrainConfig(), DATA, ORDER) is ORDER
    assert _rows(part="1/1") == ORDER.rows(0, 11).tolist()


def test_a_single_source_is_repeated_epoch_after_epoch():
    chosen = chosen_rows(DpoConfig(sources=["a"]), DATA, ORDER)
    assert chosen.rows_per_epoch == 4
    assert chosen.rows(0, 10).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert np.array_equal(chosen.rows(3, 4), chosen.rows(0, 10)[3:7])


def _weighted(**caps):
    """Four rows of source a and seven of b, a drawn three times as often."""
    places = {"a": SourceRows(0, 4, 40), "b": SourceRows(4, 11, 70)}
    limits = {name: float(cap) for name, cap in caps.items()}
    return Order(Mixture({"a": 0.75, "b": 0.25}, max_epochs=limits), places, np.full(11, 10, np.uint32), 0)


@pytest.mark.parametrize("fields", [{"sources": ["a"]}, {"sources": ["b"]}, {"part": "1/2"}, {"part": "2/2"}])
def test_a_part_of_weighted_sources_is_their_order_without_the_others(fields):
    order = _weighted()
    chosen = chosen_rows(DpoConfig(**fields), DATA, order)
    kept = {n for n in range(11) if chosen.wanted[n]}
    stream = [row for row in order.rows(0, 500).tolist() if row in kept]
    assert chosen.rows(0, 60).tolist() == stream[:60]
    assert chosen.rows(37, 9).tolist() == stream[37:46] and chosen.rows(5, 0).tolist() == []


@pytest.mark.parametrize("cap_b,rows", [(2, 8), (None, 8)])
def test_a_part_whose_sources_are_capped_ends_with_an_error(cap_b, rows):
    order = _weighted(a=2, **({} if cap_b is None else {"b": cap_b}))
    chosen = chosen_rows(DpoConfig(sources=["a"]), DATA, order)
    assert np.bincount(chosen.rows(0, rows)).tolist() == [2, 2, 2, 2]
    with pytest.raises(
        DataError, match="ends after 8 rows, because of its sources' max_epochs; found a duration of at least 9 rows"
    ):
        chosen.rows(5, 4)
    with pytest.raises(DataError, match="duration: "):
        Budget.of(Duration.parse("3 steps"), chosen, 4)
    assert Budget.of(Duration.parse("2 steps"), chosen, 4).rows == rows


def test_a_part_that_max_epochs_never_reaches_is_refused():
    order = _weighted(a=1, b=0.01)  # not a row of b
    with pytest.raises(DataError, match="ends after 0 rows"):
        Budget.of(Duration.parse("0.2 epochs"), chosen_rows(DpoConfig(sources=["b"]), DATA, order), 4)


def test_data_that_may_be_read_twice_ends_after_two_epochs():
    """An epoch is 180 tokens: the 8 rows of 10 that a may give, and 5 of b's 20."""
    places = {"a": SourceRows(0, 4, 40), "b": SourceRows(4, 11, 140)}
    row_tokens = np.array([10] * 4 + [20] * 7, np.uint32)
    order = Order(Mixture({"a": 0.75, "b": 0.25}, max_epochs={"a": 2.0, "b": 2.0}), places, row_tokens, 0)
    assert order.rows_per_epoch == 13
    assert Budget.of(Duration.parse("2 epochs"), order, 4).rows == order.total_rows == 22
    assert Budget.of(Duration.parse("360 tokens"), order, 4).rows == 22


def test_an_unknown_source_is_refused_with_the_known_sources():
    with pytest.raises(DataError, match="found c, expected one of a, b"):
        _rows(sources=["c"])
