"""AdamW on bfloat16 weights with `split_weights`: small updates add up, and a killed training loses no bit."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama, llama_folder, row, settings, stopping_at, train_rows

from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from solar.config.training import AdapterConfig, Precision, PretrainConfig
from solar.errors import Interrupted
from solar.training.checkpoint.folder import TENSORS
from solar.training.checkpoint.points import checkpoint_path
from solar.training.interrupt import StopRequest
from solar.training.optim.optimizers import build_optimizers, parameter_groups
from solar.training.optim.split_adamw import SplitAdamW, join, split

ROWS = [row(60, 40, seed=n) for n in range(8)]
CONSTANT = ScheduleConfig(ScheduleName.constant, 0.2, 1.0)


def _config(split_weights, lr=1e-6, **changes):
    optimizer = OptimizerConfig(OptimizerName.adamw, lr, [0.9, 0.95], 1e-8, 0.1, 1.0, split_weights)
    fields = {"optimizer": optimizer, "schedule": CONSTANT, "precision": Precision.bf16_true}
    return PretrainConfig(**settings(**(fields | changes)))


def test_the_two_halves_are_the_float32_number_and_the_upper_half_is_the_nearest_bfloat16():
    random_bits = torch.randint(-(2**31), 2**31, (100_000,), generator=torch.Generator().manual_seed(0))
    whole = random_bits.to(torch.int32).view(torch.float32)
    whole = whole[whole.abs() < 3e38]  # 3.4e38 rounds to infinity, and NaN to nothing
    high, low = split(whole)
    assert torch.equal(join(high, low).view(torch.int32), whole.view(torch.int32))
    ties = (whole.view(torch.int32) & 0xFFFF) == 0x8000
    assert torch.equal(high[~ties], whole.bfloat16()[~ties]) and ties.sum() < 10
    edges = torch.tensor([0.0, -0.0, 1 + 2**-8, -1 - 2**-8, 1 + 3 * 2**-8, 1e-45])
    assert torch.equal(join(*split(edges)), edges)


def _moved(split_weights, steps, dtype=torch.bfloat16):
    """Weights before and after steps at a rate of 1e-6, whose gradients have one sign."""
    network = llama(hidden_size=64).to(torch.bfloat16).to(dtype)
    before = {name: weight.detach().float().clone() for name, weight in network.named_parameters()}
    config = _config(split_weights)
    config.optimizer.weight_decay = 0.0
    (optimizer,) = build_optimizers(parameter_groups(network, config, lambda _: "old"), config.optimizer)
    for step in range(steps):
        for place, weight in enumerate(network.parameters()):
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step * 100 + place))
            weight.grad = (2 + noise).to(torch.bfloat16).to(dtype)
        optimizer.step()
    return before, network, optimizer


def test_at_a_rate_of_1e_6_plain_bfloat16_weights_of_1_stay_and_split_weights_move():
    name, steps = "model.norm.weight", 1000  # all ones: the next bfloat16 number below is 1 - 1/256
    before, plain, _ = _moved(None, steps)
    assert torch.equal(plain.get_parameter(name).float(), before[name])
    _, network, optimizer = _moved(True, steps)
    weight = network.get_parameter(name)
    moved = join(weight.detach(), optimizer.state[weight]["low_bits"]) - before[name]
    _, exact, _ = _moved(None, steps, torch.float32)
    expected = exact.get_parameter(name).detach() - before[name]
    assert float(expected.mean()) == pytest.approx(-1e-6 * steps, rel=0.2)
    torch.testing.assert_close(moved, expected, rtol=0.02, atol=0)  # the moments are rounded, the weights are not


def test_weights_that_bfloat16_can_show_end_where_float32_ends():
    """Matrices of 0.2: after 2,000 steps of 1e-6 most of them round to another bfloat16 number."""
    before, exact, _ = _moved(None, 2000, torch.float32)
    _, plain, _ = _moved(None, 2000)
    _, network, _ = _moved(True, 2000)
    name = "model.layers.0.mlp.up_proj.weight"
    target = exact.get_parameter(name).detach()
    errors = [float((n.get_parameter(name).detach().float() - target).abs().mean()) for n in (plain, network)]
    rounding = float((target.bfloat16().float() - target).abs().mean())
    assert errors[1] == pytest.approx(rounding, rel=0.05)
    assert errors[0] > 3 * rounding
    assert float((target - before[name]).mean()) == pytest.approx(-2e-3, rel=0.2)


def test_one_step_is_torchs_own_on_float32_weights_with_decay():
    network = llama(hidden_size=64).to(torch.bfloat16)
    weight = network.model.layers[0].mlp.up_proj.weight
    other = torch.nn.Parameter(weight.detach().float())
    weight.grad = torch.randn(weight.shape).to(torch.bfloat16)
    other.grad = weight.grad.float()
    config = _config(True, lr=1e-2)
    groups = parameter_groups(network, config, lambda _: "old")
    (optimizer,) = build_optimizers(groups, config.optimizer)
    assert isinstance(optimizer, SplitAdamW)
    optimizer.step()
    torch.optim.AdamW([other], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True).step()
    assert torch.equal(join(weight.detach(), optimizer.state[weight]["low_bits"]), other.detach())


def test_killed_and_resumed_it_ends_in_the_same_bytes_and_its_checkpoint_holds_the_lower_bits(tmp_path):
    folder, config = llama_folder(tmp_path / "base"), _config(True, lr=1e-4)
    train_rows(ROWS, config, folder, tmp_path / "straight")
    for stop_at in (1, 3):
        stop = StopRequest()
        with pytest.raises(Interrupted):
            train_rows(ROWS, config, folder, tmp_path / "other", module=stopping_at(stop, stop_at), stop=stop)
    saved = load_file(checkpoint_path(tmp_path / "other/checkpoints", 3) / TENSORS)
    low = [tensor for name, tensor in saved.items() if "low_bits" in name]
    assert len(low) == len(list(llama().parameters())) and all(tensor.view(torch.int16).any() for tensor in low)
    train_rows(ROWS, config, folder, tmp_path / "other")
    models = [(tmp_path / run / "model/model.safetensors").read_bytes() for run in ("straight", "other")]
    assert models[0] == models[1]
    logs = [(tmp_path / run / "logs/metrics.jsonl").read_text().splitlines() for run in ("straight", "other")]
    lines = [[{**json.loads(line), "tokens_per_second": 0} for line in log] for log in logs]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    "changes,found",
    [
        ({"precision": Precision.fp32}, "precision fp32"),
        ({"precision": Precision.bf16_mixed}, "precision bf16_mixed"),
        ({"adapter": AdapterConfig(rank=2)}, "an adapter"),
    ],
)
def test_where_nothing_is_cut_off_it_is_refused(changes, found):
    assert list(_config(True, **changes).problems()) == [
        f"optimizer.split_weights: found true with {found}, expected bf16_true and no adapter"
    ]
    other = OptimizerConfig(OptimizerName.muon, 1e-2, [0.9, 0.95], 1e-8, 0.1, 1.0, True)
    assert list(other.problems()) == ["split_weights: found true with muon, expected adamw"]
