"""Steps on a GPU: what only a GPU can tell. Elsewhere these tests are skipped; `make test-gpu` runs them."""

import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import Place, llama, llama_folder, pair, row, settings, stopping_at, train_rows
from torch._dynamo.utils import counters

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.training import Precision, PretrainConfig
from solar.errors import Interrupted
from solar.network import liger
from solar.network.attention import NAME, Segment
from solar.network.decoder import Decoder
from solar.training.interrupt import StopRequest
from solar.training.modules.compilation import compile_layers
from solar.training.modules.float8 import CAPABILITY, compute_in_float8
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.modules.recomputation import recompute_activations
from solar.training.preference.module import PreferenceOptimization

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees"),
]
GPU, DEVICE = {"accelerator": "gpu"}, "cuda"
SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
ROWS = [row(60 + n, 40, 7, seed=n, sample=n) for n in range(8)]
PAIRS = [pair(14 + n % 3, 25, 13 + n % 4, seed=n, sample=n) for n in range(8)]


def _counting(parent, counts):
    class Counting(parent):
        def training_step(self, step, batch_idx):
            if not step.micro_batches:
                return
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as found:
                    warnings.simplefilter("always")
                    super().training_step(step, batch_idx)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            counts.append(sum("synchroniz" in str(warning.message) for warning in found))

    return Counting


@pytest.mark.parametrize("kind", ["cpt", "dpo"])
def test_the_host_waits_once_a_step(tmp_path, monkeypatch, kind):
    """Liger's loss waits once more for each micro-batch. The first step warms up."""
    monkeypatch.setattr(liger, "installed", lambda: False)
    folder, data, counts = llama_folder(tmp_path / "base", **SIZES), tmp_path / "data", []
    data.mkdir()
    more = {"duration": "4 steps", "precision": Precision.bf16_mixed}
    if kind == "cpt":
        config, module = PretrainConfig(**settings(**more)), _counting(ContinuedPretraining, counts)
    else:
        config = DpoConfig(**settings(**more, reference="base", loss=PreferenceLoss.sigmoid, beta=0.1))
        dirs = {"model_dir": folder, "reference_dir": folder, "data_dir": data}
        module = partial(_counting(PreferenceOptimization, counts), **dirs)
    train_rows(PAIRS if kind == "dpo" else ROWS, config, folder, tmp_path / "out", module=module, **GPU)
    assert counts[1:] == [1, 1, 1]


@pytest.mark.parametrize("precision", [Precision.bf16_mixed, Precision.bf16_true, Precision.fp32])
def test_in_deterministic_mode_two_runs_and_a_resumed_run_have_the_same_bytes(tmp_path, precision):
    folder, stop = llama_folder(tmp_path / "base", **SIZES), StopRequest()
    config = PretrainConfig(**settings(precision=precision, duration="20 steps"))

    Stopping = stopping_at(stop, 7)

    more = {"deterministic": True, **GPU}
    for name in ("one", "two"):
        train_rows(ROWS, config, folder, tmp_path / name, **more)
    with pytest.raises(Interrupted):
        train_rows(ROWS, config, folder, tmp_path / "cut", module=Stopping, stop=stop, **more)
    train_rows(ROWS, config, folder, tmp_path / "cut", **more)
    models = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("one", "two", "cut")]
    assert models[0] == models[1] == models[2]


def test_split_weights_are_those_of_the_host(tmp_path):
    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.95], 1e-8, 0.1, 1.0, split_weights=True)
    config = PretrainConfig(**settings(precision=Precision.bf16_true, optimizer=optimizer, duration="4 steps"))
    folder = llama_folder(tmp_path / "base", **SIZES)
    for name, more in (("host", {}), ("gpu", GPU)):
        train_rows(ROWS, config, folder, tmp_path / name, **more)
    host, gpu = (load_file(tmp_path / name / "model/model.safetensors") for name in ("host", "gpu"))
    for name, weight in host.items():
        torch.testing.assert_close(gpu[name], weight, rtol=0, atol=4e-3)  # a few steps of 1e-3, in other directions


def test_float8_multiplies_what_it_rounds():
    if torch.cuda.get_device_capability() < CAPABILITY:
        pytest.skip("this GPU does not multiply float8 numbers")
    pytest.importorskip("torchao")
    inputs = torch.randn(47, 256, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    outputs = []
    for emulate in (True, False):
        network = llama(**SIZES).to("cuda", torch.bfloat16)
        compute_in_float8(network, emulate=emulate)
        up = network.model.layers[0].mlp.up_proj
        outputs.append(up(inputs.cuda()))
        outputs[-1].sum().backward()
        outputs.append(up.weight.grad)
    for emulated, found in zip(outputs[:2], outputs[2:], strict=True):
        torch.testing.assert_close(found, emulated, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("recomputed", [None, "selective", "full"])
def test_compiled_layers_have_the_gradients_of_eager_layers(recomputed):
    """Measured against float32 on the host: a graph that rounds less is not punished, a wrong one is."""
    errors = {compiled: _errors_of_gradients(compiled, recomputed) for compiled in (False, True)}
    for name, eager in errors[False].items():
        assert errors[True][name] <= 1.5 * eager + 1e-3, name
        assert 0 < eager < 0.05, name


def _errors_of_gradients(compiled, recomputed):
    """Parameter -> size of the error of its gradient in bfloat16, relative to the gradient of float32 on the host."""
    gradients = []
    for device, dtype in (("cpu", torch.float32), (DEVICE, torch.bfloat16)):
        network = llama(**SIZES | {"initializer_range": 0.05}, attn_implementation=NAME).to(device, dtype).train()
        if device == DEVICE and recomputed:
            recompute_activations(network, recomputed == "selective")
        if device == DEVICE and compiled:
            torch._dynamo.reset()
            counters.clear()
            compile_layers(network, Place(Path(), compile=True, **GPU).trainer)
        ids_T = torch.arange(3, 53, device=device) % 97
        positions_T = torch.cat([torch.arange(30), torch.arange(20)]).to(device)
        states_1TD = Decoder(network)(ids_T, positions_T, [Segment(30), Segment(20)])
        weights_1TD = torch.randn(states_1TD.shape, generator=torch.Generator().manual_seed(1))
        (states_1TD.float() * weights_1TD.to(device)).sum().backward()
        named = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        gradients.append({name: gradient.float().cpu() for name, gradient in named.items()})
    if compiled:
        assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"]
    exact, found = gradients
    return {name: float((found[name] - exact[name]).norm() / exact[name].norm()) for name in exact}
