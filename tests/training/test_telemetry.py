"""What is seen of each layer, by hand, and that looking changes nothing."""

import json
import math

import pytest
import torch
from tiny import llama, llama_folder, row, settings, train_rows

from solar.config.training import PretrainConfig
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.optim.layer_metrics import LayerWatch, divergence

ROWS = [row(9, 6, seed=n) for n in range(8)]
GROWN = {"solar": {"layers": [0, 1, 1, 2], "new": [2], "seams": [[2, 1, 0]], "stack": "model.layers."}}


def _grown_folder(folder):
    """A Llama of 4 layers whose layer 2 is a copy of layer 1."""
    network = llama(num_hidden_layers=4)
    network.model.layers[2].load_state_dict(network.model.layers[1].state_dict())
    network.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | GROWN))
    return folder


def _lines(output):
    lines = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "layer_grad_norm/00" in line]


def test_norms_of_gradient_and_update_by_hand():
    network = llama(num_hidden_layers=2)
    watch = LayerWatch(network)
    watch.every_steps = 2
    weight = network.model.layers[1].mlp.up_proj.weight
    weight.grad = torch.full_like(weight, 3.0)
    size = float(weight.norm())
    with watch.step(2), torch.no_grad():
        weight.mul_(0.75)  # a quarter of the weight is taken away
    assert watch.measured == {
        "layer_grad_norm/01": pytest.approx(3 * math.sqrt(weight.numel())),
        "layer_update_ratio/01": pytest.approx(0.25, rel=1e-6),
    }
    assert float(weight.norm()) == pytest.approx(0.75 * size)
    with watch.step(3):
        pass
    assert watch.measured == {}


def test_the_layers_norms_and_the_whole_gradients_norm_agree(tmp_path):
    folder = llama_folder(tmp_path / "base", tie_word_embeddings=True)
    config = PretrainConfig(**settings(lr_factors={"embed": 0.0, "norm": 0.0}))

    def make(network, *rest):
        network.model.embed_tokens.requires_grad_(False)
        network.model.norm.requires_grad_(False)
        return ContinuedPretraining(network, *rest)

    train_rows(ROWS, config, folder, tmp_path / "out", module=make, telemetry_every_steps=1)
    lines = [json.loads(line) for line in (tmp_path / "out/logs/metrics.jsonl").read_text().splitlines()]
    wholes = [line["grad_norm"] for line in lines if "grad_norm" in line]
    for whole, line in zip(wholes, _lines(tmp_path / "out"), strict=True):
        parts = [value for name, value in line.items() if name.startswith("layer_grad_norm/")]
        assert math.hypot(*parts) == pytest.approx(whole, rel=1e-5)


def test_a_copied_layer_starts_as_its_twin_and_moves_away(tmp_path):
    output = tmp_path / "out"
    config = PretrainConfig(**settings(duration="6 steps"))
    train_rows(ROWS, config, _grown_folder(tmp_path / "base"), output, telemetry_every_steps=2)
    lines = _lines(output)
    apart = [line["twin_divergence/02"] for line in lines]
    assert [line["step"] for line in lines] == [2, 4, 6] and 0 < apart[0] < apart[1] < apart[2]
    assert not any(name.startswith("twin_divergence/") and name != "twin_divergence/02" for name in lines[0])


def test_equal_layers_have_distance_0_and_small_distances_are_not_lost_in_rounding():
    network = llama(num_hidden_layers=2)
    one, other = network.model.layers
    other.load_state_dict(one.state_dict())
    assert divergence(one, other) == 0.0
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight), alpha=1e-6)
    left, right = (
        torch.cat([w.detach().double().flatten() for w in x.parameters() if w.ndim > 1]) for x in (one, other)
    )
    exact = 1 - float(torch.dot(left, right) / (left.norm() * right.norm()))
    assert 0 < exact < 1e-9 and divergence(one, other) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16_true"])
def test_measuring_every_layer_changes_no_weight(tmp_path, precision):
    """T-G4."""
    folder = _grown_folder(tmp_path / "base")
    config = PretrainConfig(**settings(precision=precision))
    for name, every in (("without", None), ("with", 1)):
        train_rows(ROWS, config, folder, tmp_path / name, telemetry_every_steps=every)
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("without", "with")]
    assert weights[0] == weights[1] and len(_lines(tmp_path / "with")) == 6


def test_a_skipped_step_writes_no_layer_metrics(tmp_path):
    class Poisoned(ContinuedPretraining):
        def loss_sum(self, batch):
            loss, others = super().loss_sum(batch)
            return (loss * math.nan if self.steps_done + 1 == 3 else loss), others

    folder = llama_folder(tmp_path / "base")
    output = tmp_path / "out"
    train_rows(ROWS, PretrainConfig(**settings()), folder, output, module=Poisoned, telemetry_every_steps=1)
    assert [line["step"] for line in _lines(output)] == [1, 2, 4, 5, 6]
