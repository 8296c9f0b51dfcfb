"""Optimizers by name: each is its library's own, and none of them forgets anything when it is killed."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama, llama_folder, row, settings, stopping_at, train_rows

from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from solar.config.training import PretrainConfig
from solar.errors import Interrupted
from solar.training.checkpoint.folder import TENSORS
from solar.training.checkpoint.points import checkpoint_path
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.optim.optimizers import (
    build_optimizers,
    eval_weights,
    parameter_groups,
    train_weights,
    weights_in_eval,
)

ROWS = [row(60, 40, seed=n) for n in range(8)]
PACKAGES = {OptimizerName.adamw_8bit: "bitsandbytes", OptimizerName.schedule_free: "schedulefree"}
CONSTANT = ScheduleConfig(ScheduleName.constant, 0.2, 1.0)
HIDDEN = 128
"""So wide that the matrices have the 4,096 numbers from which bitsandbytes keeps 8 bits."""


def _config(name, **changes):
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    optimizer = OptimizerConfig(name, 1e-2, [0.9, 0.95], 1e-8, 0.1, 1.0)
    return PretrainConfig(**settings(optimizer=optimizer, schedule=CONSTANT, **changes))


@pytest.mark.parametrize("name", OptimizerName)
def test_killed_and_resumed_every_optimizer_ends_in_the_same_bytes(tmp_path, name):
    """T-A1."""
    folder = llama_folder(tmp_path / "base", hidden_size=HIDDEN)
    config = _config(name, validate_every_steps=2)
    common = {"held_out": ROWS[:2]}
    train_rows(ROWS, config, folder, tmp_path / "straight", **common)
    for stop_at in (1, 3, 6):
        stop = StopRequest()
        with pytest.raises(Interrupted):
            module = stopping_at(stop, stop_at)
            train_rows(ROWS, config, folder, tmp_path / "other", module=module, stop=stop, **common)
    saved = load_file(checkpoint_path(tmp_path / "other/checkpoints", 6) / TENSORS)
    assert (torch.uint8 in {tensor.dtype for tensor in saved.values()}) == (name is OptimizerName.adamw_8bit)
    train_rows(ROWS, config, folder, tmp_path / "other", **common)
    models = [(tmp_path / run / "model/model.safetensors").read_bytes() for run in ("straight", "other")]
    assert models[0] == models[1]
    logs = [(tmp_path / run / "logs/metrics.jsonl").read_text().splitlines() for run in ("straight", "other")]
    lines = [[{**json.loads(line), "tokens_per_second": 0} for line in log] for log in logs]
    assert lines[0] == lines[1]


def _gradients(network):
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)


def _library(name, weights):
    """The step that the library's own optimizer makes on these weights."""
    adam = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    match name:
        case OptimizerName.adamw:
            return torch.optim.AdamW(weights, **adam)
        case OptimizerName.adamw_8bit:
            return pytest.importorskip("bitsandbytes").optim.AdamW8bit(weights, **adam)
        case OptimizerName.adafactor:
            return torch.optim.Adafactor(weights, lr=1e-2, weight_decay=0.1)
        case OptimizerName.muon:
            return torch.optim.Muon(weights, lr=1e-2, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
        case OptimizerName.schedule_free:
            return pytest.importorskip("schedulefree").AdamWScheduleFree(weights, **adam)


@pytest.mark.parametrize("name", OptimizerName)
def test_a_matrix_moves_as_the_library_moves_it(name):
    network, other = llama(hidden_size=HIDDEN), llama(hidden_size=HIDDEN)
    optimizers = build_optimizers(parameter_groups(network, _config(name), lambda _: "old"), _config(name).optimizer)
    weights = other.model.layers[0].mlp.up_proj.weight
    theirs = _library(name, [weights])
    train_weights([*optimizers, theirs])
    for _ in range(2):
        _gradients(network)
        weights.grad = network.model.layers[0].mlp.up_proj.weight.grad.clone()
        for optimizer in [*optimizers, theirs]:
            optimizer.step()
    eval_weights([*optimizers, theirs])
    torch.testing.assert_close(network.model.layers[0].mlp.up_proj.weight, weights, rtol=0, atol=1e-6)
    assert not torch.equal(weights, llama(hidden_size=HIDDEN).model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_moves_the_matrices_of_the_layers_and_adamw_all_else(weight_decay):
    network = llama()
    config = _config(OptimizerName.muon)
    config.optimizer.weight_decay = weight_decay
    muon, adam = build_optimizers(parameter_groups(network, config, lambda _: "old"), config.optimizer)
    of = {id(parameter): name for name, parameter in network.named_parameters()}
    moved = [{of[id(p)] for group in o.param_groups for p in group["params"]} for o in (muon, adam)]
    assert moved[0] == {name for name in of.values() if "proj" in name}
    assert moved[1] == set(of.values()) - moved[0]


def test_the_saved_model_is_the_average_of_schedule_free(tmp_path):
    """After one step x = z, the point of a plain step; the weights gradients are taken at lie between the two."""
    folder = llama_folder(tmp_path / "base")
    kept = {}

    class Keeping(ContinuedPretraining):
        def training_step(self, step, batch_idx):
            super().training_step(step, batch_idx)
            if step.micro_batches:
                kept["y"] = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
                states = self.trainer.optimizers[0].state
                kept["z"] = {name: states[weight]["z"].clone() for name, weight in self.network.named_parameters()}

    config = _config(OptimizerName.schedule_free, duration="3 steps")
    train_rows(ROWS, config, folder, tmp_path / "out", module=Keeping)
    shipped = load_file(tmp_path / "out/model/model.safetensors")
    for name, x in shipped.items():  # y = beta x + (1 - beta) z
        torch.testing.assert_close(kept["y"][name], 0.9 * x + 0.1 * kept["z"][name], rtol=0, atol=1e-6)
    assert any(not torch.equal(x, kept["y"][name]) for name, x in shipped.items())


def test_validation_uses_the_average_and_changes_no_bit():
    pytest.importorskip("schedulefree")
    network = llama()
    config = _config(OptimizerName.schedule_free)
    optimizers = build_optimizers(parameter_groups(network, config, lambda _: "old"), config.optimizer)
    train_weights(optimizers)
    for _ in range(3):
        _gradients(network)
        optimizers[0].step()
    before = [weight.detach().clone() for weight in network.parameters()]
    with weights_in_eval(optimizers):
        assert not any(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert optimizers[0].param_groups[0]["train_mode"]


def test_schedule_free_with_a_decaying_rate_or_a_second_average_is_refused():
    optimizer = OptimizerConfig(OptimizerName.schedule_free, 1e-2, [0.9, 0.95], 1e-8, 0.1, 1.0)
    config = PretrainConfig(**settings(optimizer=optimizer))
    assert list(config.problems()) == ["schedule.name: found cosine with optimizer schedule_free, expected constant"]


def test_all_optimizers_but_adafactor_need_betas():
    assert not list(OptimizerConfig(OptimizerName.adafactor, 1e-2, None, None, 0.0, 1.0).problems())
    with pytest.warns(UserWarning, match=r"optimizer.betas, eps: adafactor does not read them"):
        build_optimizers(
            [{"params": [torch.nn.Parameter(torch.ones(2, 2))]}], _config(OptimizerName.adafactor).optimizer
        )
    assert list(OptimizerConfig(OptimizerName.adamw, 1e-2, None, 1e-8, 0.0, 1.0).problems()) == [
        "betas: found None, expected two numbers from 0 to below 1"
    ]
