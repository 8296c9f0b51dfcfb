"""Deterministic mode: in force while a training runs, and only then; refused in one line where it cannot be had."""

import os

import pytest
import torch
from tiny import Place, llama_folder, row, settings, stopping_at, train_rows

from solar.config.training import PretrainConfig
from solar.errors import Interrupted, StageError
from solar.training.determinism import determinism
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining

ROWS = [row(9, 6, 5, seed=n, sample=n) for n in range(8)]


def _mode():
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "filling": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": (cudnn.deterministic, cudnn.benchmark),
        "kernels": (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()),
    }


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "changed by the test, and put back after it")


@pytest.mark.parametrize("asked", [True, False])
def test_the_mode_is_in_force_in_every_step_and_ends_with_the_training(tmp_path, environment, asked):
    seen = []

    class Watching(ContinuedPretraining):
        def loss_sum(self, batch):
            seen.append((_mode(), os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"))
            return super().loss_sum(batch)

    before, config = _mode(), PretrainConfig(**settings())
    folder = llama_folder(tmp_path / "base")
    train_rows(ROWS, config, folder, tmp_path / "out", module=Watching, held_out=ROWS[:2], deterministic=asked)
    inside = {"algorithms": True, "filling": False, "cudnn": (True, False), "kernels": (True, False, False)}
    assert len(seen) > 6 and all(entry == ((inside, True) if asked else (before, False)) for entry in seen)
    assert _mode() == before and not before["algorithms"]


def test_an_operation_without_a_deterministic_kernel_is_named_in_one_line(tmp_path, environment):
    class Careless(ContinuedPretraining):
        def loss_sum(self, batch):
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))  # which of the two stays is open
            return super().loss_sum(batch)

    folder, config = llama_folder(tmp_path / "base"), PretrainConfig(**settings())
    expected = r"^trainer\.deterministic: put_ has no deterministic kernel on this device; set it to false$"
    with pytest.raises(StageError, match=expected):
        train_rows(ROWS, config, folder, tmp_path / "out", module=Careless, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_pass_through(tmp_path, environment):
    trainer = Place(tmp_path, deterministic=True).trainer
    with pytest.raises(RuntimeError, match=r"^out of memory$"), determinism(trainer):
        raise RuntimeError("out of memory")


def test_on_a_cpu_the_mode_changes_no_byte_and_a_resumed_training_has_the_same(tmp_path, environment):
    folder, config, stop = llama_folder(tmp_path / "base"), PretrainConfig(**settings()), StopRequest()

    Stopping = stopping_at(stop, 3)

    for name, mode in (("plain", False), ("mode", True)):
        train_rows(ROWS, config, folder, tmp_path / name, deterministic=mode)
    with pytest.raises(Interrupted):
        train_rows(ROWS, config, folder, tmp_path / "cut", module=Stopping, stop=stop, deterministic=True)
    train_rows(ROWS, config, folder, tmp_path / "cut", deterministic=True)
    models = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("plain", "mode", "cut")]
    assert models[0] == models[1] == models[2]
