"""A step that would do harm is skipped, counted and forgotten."""

import json
import math
import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama_folder, row, settings, train_rows

from solar.config.training import GuardConfig, PretrainConfig
from solar.errors import Interrupted, StageError
from solar.training.checkpoint.points import Points, checkpoint_path, checkpoints, prune, step_of
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.optim.guard import Guard

ROWS = [row(9, 6, seed=n) for n in range(8)]


def _poisoned(bad, stop=None, stop_at=None):
    """Training whose loss is NaN in the steps `bad` (from 1); keeps the weights after each step."""

    class Poisoned(ContinuedPretraining):
        def loss_sum(self, batch):
            loss, others = super().loss_sum(batch)
            return (loss * math.nan if self.steps_done + 1 in bad and self.network.training else loss), others

        def training_step(self, step, batch_idx):
            super().training_step(step, batch_idx)
            weights = torch.cat([p.detach().flatten() for p in self.network.parameters()])
            self.history = [*getattr(self, "history", []), weights.clone()]
            if self.steps_done == stop_at:
                stop.received = signal.SIGTERM

    return Poisoned


def test_a_step_with_nan_changes_no_weight_and_the_next_one_goes_on(tmp_path):
    """T-B1."""
    folder = llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="5 steps"))
    metrics, module = train_rows(ROWS, config, folder, tmp_path / "out", module=_poisoned({3}))
    two, three, four, five = module.history[1:]
    assert torch.equal(two, three) and not torch.equal(three, four) and five.isfinite().all()
    assert metrics["skipped_steps"] == 1 and math.isfinite(metrics["loss_last"])
    assert all(math.isfinite(value) for value in [*module.guard.losses, *module.guard.norms])
    lines = [json.loads(line) for line in (tmp_path / "out/logs/metrics.jsonl").read_text().splitlines()]
    assert [line.get("skipped", 0) for line in lines] == [0, 0, 1, 0, 0] and "loss" not in lines[2]


def test_resuming_across_a_skipped_step_is_bitwise(tmp_path):
    """T-B1."""
    folder = llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="6 steps"))
    train_rows(ROWS, config, folder, tmp_path / "straight", module=_poisoned({3}))
    for stop_at in (2, 3):
        stop = StopRequest()
        with pytest.raises(Interrupted):
            train_rows(ROWS, config, folder, tmp_path / "other", module=_poisoned({3}, stop, stop_at), stop=stop)
    metrics, _ = train_rows(ROWS, config, folder, tmp_path / "other", module=_poisoned({3}))
    assert metrics["skipped_steps"] == 1
    files = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("straight", "other")]
    assert files[0] == files[1]


def test_steps_that_stay_bad_stop_the_training_in_one_line(tmp_path):
    """T-B1."""
    folder = llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="9 steps", guard=GuardConfig(patience=3)))
    with pytest.raises(StageError, match="training diverged: 3 steps up to step 5"):
        train_rows(ROWS, config, folder, tmp_path / "out", module=_poisoned({3, 4, 5}))
    assert not (tmp_path / "out/model").exists()


def test_a_nan_never_reaches_the_saved_model(tmp_path):
    folder = llama_folder(tmp_path / "base")
    train_rows(ROWS, PretrainConfig(**settings()), folder, tmp_path / "out", module=_poisoned({1, 6}))
    assert all(t.isfinite().all() for t in load_file(tmp_path / "out/model/model.safetensors").values())


def test_a_spike_by_hand():
    """T-B2."""
    guard = Guard(GuardConfig(spike_sigmas=2.0, window=4))
    for loss in (1.0, 2.0, 3.0, 2.0):  # mean 2, deviation sqrt(2 / 3) = 0.816: the limit is 3.633
        assert guard.accepts(loss, 1.0, 1)
    assert not guard.accepts(3.64, 1.0, 5)
    assert guard.skipped == 1 and list(guard.losses) == [2.0, 3.0, 2.0, 3.64]


def test_a_spike_of_the_gradient_alone_is_skipped_and_the_window_holds_no_nan():
    guard = Guard(GuardConfig(spike_sigmas=6.0, window=3))
    for norm in (1.0, 1.1, 0.9):
        assert guard.accepts(1.0, norm, 1)
    assert not guard.accepts(1.0, 100.0, 4)
    assert not guard.accepts(math.nan, 1.0, 5) and not guard.accepts(1.0, math.inf, 6)
    assert all(math.isfinite(value) for value in [*guard.losses, *guard.norms])


def test_the_window_survives_a_restart():
    """T-B2."""
    guard, other = Guard(GuardConfig(spike_sigmas=2.0, window=2)), Guard(GuardConfig(spike_sigmas=2.0, window=2))
    for loss in (1.0, 2.0, 9.0, math.nan):
        guard.accepts(loss, 1.0, 1)
    other.restore(json.loads(json.dumps(guard.state())))
    assert other.state() == guard.state()


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


ROLLBACK = GuardConfig(rollback_after=2, rollback_every_steps=3)


def test_after_two_bad_steps_the_weights_are_rolled_back_and_the_bad_rows_are_listed(tmp_path):
    """T-B2."""
    folder = llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="8 steps", guard=ROLLBACK))
    metrics, module = train_rows(ROWS, config, folder, tmp_path / "out", module=_poisoned({5, 6}))
    assert metrics["rollbacks"] == 1 and metrics["skipped_steps"] == 2 and metrics["steps"] == 8
    lines = _lines(tmp_path / "out/logs/metrics.jsonl")
    assert [line.get("rolled_back", 0) for line in lines] == [0, 0, 0, 0, 0, 3, 0, 0]  # 6 steps done, back to step 3
    message = _lines(tmp_path / "out/logs/skipped.jsonl")
    assert [(line["step"], line["rows"], line.get("back_to_step")) for line in message] == [
        (5, [0, 1, 2, 3], None),
        (6, [4, 5, 6, 7], 3),
    ]
    plain = PretrainConfig(**settings(duration="8 steps"))
    _, other = train_rows(ROWS, plain, folder, tmp_path / "plain", module=_poisoned({4, 5, 6}))
    assert torch.equal(module.history[6], other.history[6])  # as if step 4, 5 and 6 had never been


def test_bad_steps_that_span_many_points_do_not_push_out_the_good_one(tmp_path):
    folder, guard = llama_folder(tmp_path / "base"), GuardConfig(rollback_after=6, rollback_every_steps=1)
    config = PretrainConfig(**settings(duration="10 steps", guard=guard))
    bad = {3, 4, 5, 6, 7, 8}
    train_rows(ROWS, config, folder, tmp_path / "out", module=_poisoned(bad), keep_checkpoints=1)
    assert [line.get("back_to_step") for line in _lines(tmp_path / "out/logs/skipped.jsonl")] == [*[None] * 5, 2]


@pytest.mark.parametrize("stops", [(2,), (3, 5), (6,), (4, 7)], ids=str)
def test_a_resumed_run_rolls_back_to_the_same_point(tmp_path, stops):
    """T-B2."""
    folder = llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="8 steps", guard=ROLLBACK))
    expected, _ = train_rows(ROWS, config, folder, tmp_path / "straight", module=_poisoned({5, 6}))
    for stop_at in stops:
        stop = StopRequest()
        with pytest.raises(Interrupted):
            train_rows(ROWS, config, folder, tmp_path / "other", module=_poisoned({5, 6}, stop, stop_at), stop=stop)
    actual, _ = train_rows(ROWS, config, folder, tmp_path / "other", module=_poisoned({5, 6}))
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("straight", "other")]
    skipped = [(tmp_path / name / "logs/skipped.jsonl").read_bytes() for name in ("straight", "other")]
    assert weights[0] == weights[1] and skipped[0] == skipped[1]
    measured = {"tokens_per_second": 0, "peak_memory_bytes": 0}
    assert expected | measured == actual | measured


def test_the_point_lies_before_the_first_bad_step():
    guard = Guard(GuardConfig(rollback_after=2, rollback_every_steps=10))
    assert guard.accepts(1.0, 1.0, 19) and not guard.accepts(math.nan, 1.0, 20)
    assert guard.rollback_point(20) is None
    assert not guard.accepts(math.nan, 1.0, 21)
    assert guard.rollback_point(21) == 10  # step 20 is a multiple, but bad
    assert not guard.accepts(math.nan, 1.0, 22)
    assert guard.rollback_point(22) is None  # once is enough


def test_retention_keeps_two_points_behind_the_oldest_checkpoint(tmp_path):
    """T-A4."""
    for step in (0, 10, 20, 30, 34):
        checkpoint_path(tmp_path, step).mkdir()
    prune(tmp_path, 1, Points(first=0, every=10, after=6))  # from step 34 - 6 on, back to 20
    assert [step_of(path) for path in checkpoints(tmp_path)] == [20, 30, 34]
    prune(tmp_path, 1)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [34]


@pytest.mark.parametrize(
    ("guard", "line"),
    [
        (GuardConfig(rollback_after=3), "rollback_after, rollback_every_steps: found one of them"),
        (GuardConfig(rollback_after=10, rollback_every_steps=5), "rollback_after: found 10, expected 1 to below"),
        (GuardConfig(rollback_after=2, rollback_every_steps=0), "rollback_every_steps: found 0, expected at least 1"),
    ],
)
def test_an_impossible_rollback_is_refused(guard, line):
    assert any(problem.startswith(line) for problem in guard.problems())


def test_a_training_that_skips_all_its_steps_fails(tmp_path):
    class Poisoned(ContinuedPretraining):
        def loss_sum(self, batch):
            loss, others = super().loss_sum(batch)
            return loss * math.nan, others

    config = PretrainConfig(**settings(duration="2 steps"))
    with pytest.raises(StageError, match="learnt nothing: each of its 2 steps"):
        train_rows([row(9)] * 4, config, llama_folder(tmp_path / "base"), tmp_path / "out", module=Poisoned)
