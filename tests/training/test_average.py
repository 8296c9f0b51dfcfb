"""Averages of the weights: by hand, in the saved model, and across restarts."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama_folder, row, settings, stopping_at, train_rows

from solar.config.training import AverageConfig, AverageKind, PretrainConfig
from solar.errors import Interrupted
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.optim.average import Average

ROWS = [row(9, 6, seed=n) for n in range(8)]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("none", {"decay": 0.9}),
        ("ema", {"every_steps": 2}),
        ("window", {"decay": 0.9}),
        ("ema", {"window_fraction": 0.5}),
    ],
)
def test_a_setting_that_the_average_does_not_read_is_refused(kind, fields):
    (problem,) = AverageConfig(AverageKind(kind), **fields).problems()
    assert problem.startswith(f"{next(iter(fields))}: kind {kind} does not read it; remove it, or take ")


def _averaged(config, values):
    weight = torch.zeros(1)
    average = Average(config, [weight], len(values))
    for step, value in enumerate(values, start=1):
        weight.fill_(value)
        average.step_done(step)
    average.put_in()
    return weight.item()


def test_moving_average_by_hand():
    # weights 1/4, 1/2 and 1 of 7/4: (8 / 4 + 4 / 2 + 3) / (7 / 4) = 4
    assert _averaged(AverageConfig(AverageKind.ema, decay=0.5), [8.0, 4.0, 3.0]) == pytest.approx(4.0)
    # a decay of almost 1 is the plain mean, not the first weights
    assert _averaged(AverageConfig(AverageKind.ema, decay=0.999999), [8.0, 4.0, 3.0]) == pytest.approx(5.0, rel=1e-4)


def test_window_by_hand():
    # the last half of 8 steps, every second one counted from the end: 6 and 8
    config = AverageConfig(AverageKind.window, window_fraction=0.5, every_steps=2)
    assert _averaged(config, [0.0, 0, 0, 0, 5, 6, 7, 9]) == pytest.approx(7.5)


class Keeping(ContinuedPretraining):
    def training_step(self, step, batch_idx):
        super().training_step(step, batch_idx)
        self.history = [*getattr(self, "history", []), self.network.lm_head.weight.detach().clone()]


def test_the_saved_model_is_the_mean_of_the_window(tmp_path):
    average = AverageConfig(AverageKind.window, window_fraction=0.5)
    config = PretrainConfig(**settings(duration="6 steps", average=average))
    _, module = train_rows(ROWS, config, llama_folder(tmp_path / "base"), tmp_path / "out", module=Keeping)
    saved = load_file(tmp_path / "out/model/model.safetensors")["lm_head.weight"]
    torch.testing.assert_close(saved, torch.stack(module.history[3:]).mean(0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [AverageKind.ema, AverageKind.window])
@pytest.mark.parametrize("stop_at", [2, 4, 6])
def test_a_restart_changes_no_bit_of_the_average(tmp_path, kind, stop_at):
    """T-A1."""
    average = AverageConfig(kind, decay=0.9, window_fraction=0.5)
    config = PretrainConfig(**settings(duration="6 steps", average=average))
    folder, stop = llama_folder(tmp_path / "base"), StopRequest()

    Stopping = stopping_at(stop, stop_at)

    with pytest.raises(Interrupted):
        train_rows(ROWS, config, folder, tmp_path / "other", module=Stopping, stop=stop)
    for name in ("straight", "other"):
        train_rows(ROWS, config, folder, tmp_path / name)
    files = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("straight", "other")]
    assert files[0] == files[1]
