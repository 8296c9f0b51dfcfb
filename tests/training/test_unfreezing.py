"""New layers train first; the others join at a step, and nothing of them has moved before."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama_folder, row, settings, train_rows

from solar.config.duration import Duration
from solar.config.training import PretrainConfig, Trainable
from solar.errors import Interrupted
from solar.growth.roles import roles
from solar.training.checkpoint.folder import TENSORS
from solar.training.checkpoint.points import checkpoint_path
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.modules.unfreezing import FrozenUntil
from solar.training.optim.optimizers import freeze

GROWN = {"solar": {"layers": [0, 1, 1, 2], "new": [2], "seams": [[2, 1, 0]], "stack": "model.layers."}}
ROWS = [row(9, 6, seed=n) for n in range(8)]
STEPS, UNTIL = 6, 3


def _grown(tmp_path):
    folder = tmp_path / "base"
    if not folder.exists():
        llama_folder(folder, num_hidden_layers=4)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | GROWN))
    return folder


def _train(tmp_path, name, stop_at=None, **changes):
    """The module after training, with the weights of each step; None if it was stopped."""
    fields = {"trainable": Trainable.new, "unfreeze_at": f"{UNTIL} steps", "duration": f"{STEPS} steps"}
    config, stop, folder = PretrainConfig(**settings(**fields | changes)), StopRequest(), _grown(tmp_path)
    assert list(config.problems()) == []

    class Watching(ContinuedPretraining):
        def training_step(self, step, batch_idx):
            super().training_step(step, batch_idx)
            weights = {name: p.detach().clone() for name, p in self.network.named_parameters()}
            self.history = [*getattr(self, "history", []), weights]
            if self.steps_done == stop_at:
                stop.received = signal.SIGTERM

    def make(network, config, schedule, _):
        freeze(network, config, roles(GROWN))
        module = Watching(network, config, schedule, roles(GROWN))
        if config.unfreeze_at is not None:
            module.frozen = FrozenUntil.of(
                network, config, roles(GROWN), round(Duration.parse(config.unfreeze_at).amount)
            )
        return module

    _, module = train_rows(ROWS, config, folder, tmp_path / name, module=make, stop=stop)
    return module


def test_old_weights_keep_every_byte_until_their_step_and_move_after_it(tmp_path):
    """T-B4."""
    module, before = _train(tmp_path, "out"), load_file(tmp_path / "base/model.safetensors")
    for step, weights in enumerate(module.history[:STEPS], start=1):
        moved = {name for name, weight in weights.items() if not torch.equal(weight, before[name])}
        expected = {name for name in before if step > UNTIL or name.startswith("model.layers.2.")}
        assert moved == expected, step


def test_before_unfreezing_only_the_new_layers_are_trained(tmp_path):
    joining, alone = _train(tmp_path, "joining"), _train(tmp_path, "alone", unfreeze_at=None)
    for name, weight in joining.history[UNTIL - 1].items():
        assert torch.equal(weight, alone.history[UNTIL - 1][name]), name
    assert not torch.equal(joining.history[-1]["lm_head.weight"], alone.history[-1]["lm_head.weight"])


def test_the_optimizer_state_of_unfrozen_weights_begins_at_their_step(tmp_path):
    with pytest.raises(Interrupted):
        _train(tmp_path, "early", stop_at=UNTIL)
    early = load_file(checkpoint_path(tmp_path / "early/checkpoints", UNTIL) / TENSORS)
    with pytest.raises(Interrupted):
        _train(tmp_path, "late", stop_at=UNTIL + 1)
    late = load_file(checkpoint_path(tmp_path / "late/checkpoints", UNTIL + 1) / TENSORS)
    steps = [sorted(int(t) for name, t in actual.items() if name.endswith(".step")) for actual in (early, late)]
    new = 9  # parameters of a layer
    assert steps[0] == [UNTIL] * new
    assert steps[1] == [1] * (3 * new + 3) + [UNTIL + 1] * new


@pytest.mark.parametrize("stops", [(UNTIL - 1,), (UNTIL,), (UNTIL + 1,), (1, 2, 3, 4, 5)], ids=str)
def test_a_restart_before_or_after_unfreezing_changes_no_bit(tmp_path, stops):
    """T-A1."""
    _train(tmp_path, "straight")
    for stop_at in stops:
        with pytest.raises(Interrupted):
            _train(tmp_path, "stopped", stop_at)
    _train(tmp_path, "stopped")
    files = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("straight", "stopped")]
    assert files[0] == files[1]


def test_unfreezing_does_not_change_the_learning_rate(tmp_path):
    rates = []
    for name, until in (("joining", "3 steps"), ("alone", None)):
        _train(tmp_path, name, unfreeze_at=until)
        lines = (tmp_path / name / "logs/metrics.jsonl").read_text().splitlines()
        rates.append([json.loads(line)["lr"] for line in lines])
    assert rates[0] == rates[1]


def test_unfreezing_without_frozen_weights_is_refused():
    (problem,) = PretrainConfig(**settings(unfreeze_at="1M tokens")).problems()
    assert problem == "unfreeze_at: found '1M tokens', expected trainable new and no adapter with it"
