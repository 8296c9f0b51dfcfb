"""Parts of the data: every pair in exactly one, and the whole is what it was."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny import InOrder, MemoryRows, pair

from solar.config.preference import DpoConfig
from solar.config.training import PretrainConfig
from solar.errors import DataError
from solar.training.parts import chosen_rows

DATA = MemoryRows([pair(3, 2, 2, seed=n, sample=n) for n in range(11)])
DATA.split = SimpleNamespace(sources={"a": SimpleNamespace(start=0, stop=4), "b": SimpleNamespace(start=4, stop=11)})
ORDER = InOrder(DATA)


def _rows(**said):
    chosen = chosen_rows(DpoConfig(**said), DATA, ORDER)
    return chosen.rows(0, chosen.rows_per_epoch).tolist()


def test_parts_hold_every_pair_once():
    parts = [_rows(part=f"{number}/3") for number in (1, 2, 3)]
    assert sorted(row for part in parts for row in part) == list(range(11))
    assert [len(part) for part in parts] == [4, 3, 4]


def test_parts_by_shares_hold_every_pair_once():
    parts = [_rows(part=part) for part in ("0:0.2", "0.2:0.5", "0.5:1")]
    assert sorted(row for part in parts for row in part) == list(range(11))
    assert [len(part) for part in parts] == [2, 4, 5]


def test_a_chunk_is_what_another_stage_said():
    chosen = chosen_rows(DpoConfig(chunks="order", chunk=2), DATA, ORDER, np.array([1, 2, 1, 2] + [3] * 7))
    assert chosen.rows(0, chosen.rows_per_epoch).tolist() == [1, 3]


def test_the_whole_is_the_order_itself():
    assert chosen_rows(DpoConfig(), DATA, ORDER) is ORDER
    assert chosen_rows(PretrainConfig(), DATA, ORDER) is ORDER
    assert _rows(part="1/1") == ORDER.rows(0, 11).tolist()


def test_a_source_alone_and_over_and_over():
    chosen = chosen_rows(DpoConfig(sources=["a"]), DATA, ORDER)
    assert chosen.rows_per_epoch == 4
    assert chosen.rows(0, 10).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert np.array_equal(chosen.rows(3, 4), chosen.rows(0, 10)[3:7])


def test_an_unknown_source_is_named_with_those_there_are():
    with pytest.raises(DataError, match="found c, expected one of a, b"):
        _rows(sources=["c"])
