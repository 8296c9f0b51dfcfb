"""T-C8. Read back from the batches themselves: which tokens a training sees, for any workers, ranks and stops."""

from itertools import chain, islice, pairwise

import numpy as np
import pytest

from solar.config.data import Packing
from solar.config.duration import Duration
from solar.data.order.order import Order
from solar.data.store.dataset import TokenDataset
from solar.network.microbatch import from_rows
from solar.training.batches.steps import Budget, StepDataset, step_loader
from tests.faults.traced import traced_tokens

LENGTHS = [7, 3, 12, 5, 1, 9, 4, 16, 2, 8, 6, 11, 3, 5, 10, 7, 13, 4, 9, 2, 6]
BATCH, MICRO = 4, 2


def _read(folder, first, stop, workers, ranks):
    """The tokens of steps `first` to `stop`, a list for each step, as a process that starts there reads them."""
    parts = []
    for rank in range(ranks):
        data = TokenDataset(folder, "train")
        order = Order.of(data, 3)
        budget = Budget.of(Duration.parse("2 epochs"), order, BATCH)
        steps = StepDataset(data, order, from_rows, budget, MICRO, rank, ranks)
        loader = step_loader(steps, first, workers)
        parts.append([step.micro_batches for step in islice(loader, (stop or budget.steps) - first)])
    return [[token for batch in chain(*step) for token in _tokens(batch)] for step in zip(*parts, strict=True)]


def _tokens(batch):
    """The tokens of a micro-batch: each segment is part of one document, and positions begin anew in each."""
    if not batch.tokens:  # of a rank without rows
        return []
    starts = {0, *np.cumsum(LENGTHS).tolist()}
    ids, positions, begin = batch.input_ids_T.numpy(), batch.position_ids_T.numpy(), 0
    for segment in batch.segments:
        part = ids[begin : begin + segment.length]
        assert part.tolist() == list(range(part[0], part[0] + segment.length))
        assert not starts & set(part[1:].tolist()), "two documents in one segment"
        assert positions[begin : begin + segment.length].tolist() == list(range(segment.length))
        begin += segment.length
    assert begin == len(ids)
    return ids.tolist()


@pytest.fixture(params=Packing)
def folder(request, tmp_path):
    return traced_tokens(tmp_path / "tokens", LENGTHS, request.param, 16)


def test_two_epochs_hold_every_token_twice(folder):
    read = list(chain(*_read(folder, 0, None, workers=0, ranks=1)))
    assert np.bincount(read).tolist() == [2] * sum(LENGTHS)


@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (0, 2), (0, 3), (0, 4), (2, 1), (2, 2)])
def test_workers_ranks_and_stops_change_no_step(folder, workers, ranks):
    """T-G3. Stopped before step 1, at the end of the first epoch, right after it, and goes on with other ranks."""
    expected = [sorted(tokens) for tokens in _read(folder, 0, None, workers=0, ranks=1)]
    rows = TokenDataset(folder, "train").split.rows
    stops = [0, 1, rows // BATCH, rows // BATCH + 1, None]
    read = []
    for number, (first, stop) in enumerate(pairwise(stops)):
        read += _read(folder, first, stop, workers, ranks if number % 2 == 0 else 1)
    assert [sorted(tokens) for tokens in read] == expected
    assert len(expected) > 4
