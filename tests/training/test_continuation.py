"""A trunk and a branch are one uninterrupted training, to the last bit."""

import hashlib
import json
import signal

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny import InOrder, MemoryRows, Place, llama_folder, row, settings

from solar.config.duration import Duration
from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from solar.config.training import AverageConfig, AverageKind, GuardConfig, PretrainConfig
from solar.errors import Interrupted, StageError
from solar.network.loading import load_network
from solar.plan.checks.branches import branch_problems
from solar.training.batches.continuation import KEPT, Trunk
from solar.training.batches.steps import Budget, StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.trainer import train

ROWS = MemoryRows([row(9, 6, seed=n, sample=n) for n in range(31)])
STAYS = ScheduleConfig(ScheduleName.wsd, 0.0, 0.0, warmup="2 steps")
DECAYS = ScheduleConfig(ScheduleName.wsd, 0.0, 0.0, decay_fraction=1.0)
WHOLE = ScheduleConfig(ScheduleName.wsd, 0.0, 0.0, warmup="2 steps", decay="4 steps")


def _config(steps, schedule, **changes):
    return PretrainConfig(**settings(duration=f"{steps} steps", schedule=schedule, **changes))


def _train(config, model_dir, output, stop_at=None, bad=()):
    """`fit` on rows in memory; returns the samples read, step by step."""
    order, stop, read = InOrder(ROWS), StopRequest(), []
    trunk = Trunk.of(model_dir) if config.branch else None
    order = trunk.rest(order) if trunk else order
    budget = Budget.of(Duration.parse(config.duration), order, config.global_batch_size)

    class Watching(ContinuedPretraining):
        def loss_sum(self, batch):
            loss, others = super().loss_sum(batch)
            return loss * (float("nan") if self.steps_done + 1 in bad else 1.0), others

        def training_step(self, step, batch_idx):
            super().training_step(step, batch_idx)
            read.append([sample for batch in step.micro_batches for sample in batch.sample_ids[::2]])
            if self.steps_done == stop_at:
                stop.received = signal.SIGTERM

    network = load_network(model_dir, config.precision)
    module = Watching(network, config, budget.schedule(config.schedule, order), lambda name: "old")
    module.first_step = trunk.steps if trunk else 0
    steps = StepDataset(ROWS, order, module.assemble, budget, 2)
    held_out = ValidationRows([], module.assemble, 2, None)
    metrics = train(module, steps, held_out, model_dir, output, Place(output), stop)
    (output / "metrics.json").write_text(json.dumps(metrics))
    return [samples for samples in read if samples]


def _digest(output):
    return hashlib.sha256((output / "model/model.safetensors").read_bytes()).hexdigest()


def _lines(output):
    lines = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "tokens_per_second"} for line in lines]


OPTIMIZERS = {
    "adamw": OptimizerConfig(OptimizerName.adamw, 1e-2, [0.9, 0.95], 1e-8, 0.1, 1.0),
    "muon": OptimizerConfig(OptimizerName.muon, 1e-2, [0.95, 0.95], 1e-8, 0.1, 1.0),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trunk_and_a_decay_branch_are_one_wsd_run_to_the_last_bit(tmp_path, optimizer):
    """T-A10."""
    base, same = llama_folder(tmp_path / "base", attention_dropout=0.1), {"optimizer": OPTIMIZERS[optimizer]}
    samples = _train(_config(10, WHOLE, **same), base, tmp_path / "whole")
    first = _train(_config(6, STAYS, keep_optimizer=True, **same), base, tmp_path / "trunk")
    second = _train(_config(4, DECAYS, branch=True, **same), tmp_path / "trunk/model", tmp_path / "branch")
    assert first + second == samples == np.arange(40).reshape(10, 4).__mod__(31).tolist()
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "branch") != _digest(tmp_path / "trunk")
    assert _lines(tmp_path / "trunk") + _lines(tmp_path / "branch") == _lines(tmp_path / "whole")


def test_a_branch_that_is_stopped_goes_on_from_its_own_checkpoint(tmp_path):
    """T-A1."""
    base = llama_folder(tmp_path / "base")
    _train(_config(6, STAYS, keep_optimizer=True), base, tmp_path / "trunk")
    config = _config(4, DECAYS, branch=True)
    _train(config, tmp_path / "trunk/model", tmp_path / "straight")
    for stop_at in (7, 9, 10):
        with pytest.raises(Interrupted, match=f"after step {stop_at} of 10"):
            _train(config, tmp_path / "trunk/model", tmp_path / "stopped", stop_at)
    _train(config, tmp_path / "trunk/model", tmp_path / "stopped")
    assert _digest(tmp_path / "straight") == _digest(tmp_path / "stopped")
    assert _lines(tmp_path / "straight") == _lines(tmp_path / "stopped")


@pytest.mark.parametrize(("every", "point"), [(4, 6), (5, 6), (1, 7)])
def test_a_branch_is_rolled_back_to_its_own_beginning_at_most(tmp_path, every, point):
    """Steps 8 and 9 are bad. Points of its own begin where the trunk ended, after step 6."""
    base = llama_folder(tmp_path / "base")
    _train(_config(6, STAYS, keep_optimizer=True), base, tmp_path / "trunk")
    guard = GuardConfig(rollback_after=2, rollback_every_steps=every)
    config = _config(4, DECAYS, branch=True, guard=guard)
    _train(config, tmp_path / "trunk/model", tmp_path / "branch", bad=(8, 9))
    message = [json.loads(line) for line in (tmp_path / "branch/logs/skipped.jsonl").read_text().splitlines()]
    assert [(line["step"], line.get("back_to_step")) for line in message] == [(8, None), (9, point)]


def test_steps_that_the_trunk_skipped_are_not_counted_again(tmp_path):
    base = llama_folder(tmp_path / "base")
    _train(_config(6, STAYS, keep_optimizer=True), base, tmp_path / "trunk", bad=(4, 5))
    _train(_config(2, DECAYS, branch=True), tmp_path / "trunk/model", tmp_path / "branch")
    message = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("trunk", "branch")]
    assert [metrics["skipped_steps"] for metrics in message] == [2, 0]


def test_a_branch_goes_on_from_the_weights_and_not_from_their_average(tmp_path):
    base = llama_folder(tmp_path / "base")
    ema = AverageConfig(AverageKind.ema, decay=0.5)
    _train(_config(6, STAYS, keep_optimizer=True), base, tmp_path / "plain")
    _train(_config(6, STAYS, keep_optimizer=True, average=ema), base, tmp_path / "averaged")
    assert _digest(tmp_path / "plain") != _digest(tmp_path / "averaged")
    for name in ("plain", "averaged"):
        _train(_config(4, DECAYS, branch=True), tmp_path / name / "model", tmp_path / f"{name}-branch")
    assert _digest(tmp_path / "plain-branch") == _digest(tmp_path / "averaged-branch")


def test_a_branch_without_the_optimizer_differs_from_one_run(tmp_path):
    base = llama_folder(tmp_path / "base")
    _train(_config(6, STAYS, keep_optimizer=True), base, tmp_path / "trunk")
    for name, branch in (("branch", True), ("anew", None)):
        _train(_config(4, DECAYS, branch=branch), tmp_path / "trunk/model", tmp_path / name)
    assert _digest(tmp_path / "branch") != _digest(tmp_path / "anew")


def test_the_kept_training_state_holds_no_pickle_and_is_checked(tmp_path):
    """T-E2."""
    base = llama_folder(tmp_path / "base")
    _train(_config(2, STAYS), base, tmp_path / "without")
    with pytest.raises(StageError, match="keep_optimizer"):
        Trunk.of(tmp_path / "without/model")
    _train(_config(2, STAYS, keep_optimizer=True), base, tmp_path / "trunk")
    kept = tmp_path / "trunk" / KEPT
    assert sorted(path.name for path in kept.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert any("exp_avg" in name for name in load_file(kept / "tensors.safetensors"))
    with (kept / "tensors.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(StageError, match=r"tensors\.safetensors is not what was written"):
        Trunk.of(tmp_path / "trunk/model")


def test_a_branch_without_a_usable_state_is_refused_before_it_starts():
    trunk, branch = _config(6, STAYS, keep_optimizer=True), _config(4, DECAYS, branch=True, model="trunk")
    assert list(branch_problems(branch, {"trunk": trunk})) == []
    branch.optimizer = OptimizerConfig(OptimizerName.adamw, 2e-2, [0.9, 0.95], 1e-8, 0.1, 1.0)
    branch.seed = 6
    assert [problem.split(":")[0] for problem in branch_problems(branch, {"trunk": trunk})] == ["seed", "optimizer"]
    trunk.keep_optimizer = None
    (problem,) = branch_problems(branch, {"trunk": trunk})
    assert problem == "branch: 'trunk' keeps no optimizer state; set stages.trunk.keep_optimizer to true"
