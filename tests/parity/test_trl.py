"""Preference training beside TRL's trainers on the same models and pairs: losses, gradients and training, step by step.

TRL runs in an environment of its own: SOLAR_RIVALS names a Python that has it. Written for TRL 1.16, which has no
DPO-Positive and IPO only per token; what it calls `robust` is not cDPO.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny import VOCABULARY, TinyRow, llama_folder, settings, train_rows

from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from solar.config.preference import DpoConfig, PreferenceLoss
from solar.training.preference.module import PreferenceOptimization

RIVALS = os.environ.get("SOLAR_RIVALS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(RIVALS is None, reason="SOLAR_RIVALS names no Python that has trl"),
]
EOS, STEPS, BATCH = 1, 6, 2
ALPHA, GAMMA, SMOOTHING = 0.3, 0.7, 0.1
OURS_AND_TRLS = {
    "sigmoid": ({}, "dpo", {"loss_type": ["sigmoid"]}),
    # of one pair at a time, `aot` is the loss of a pair with smoothed labels, which TRL has under no other name
    "cdpo": ({"label_smoothing": SMOOTHING}, "dpo", {"loss_type": ["aot"], "label_smoothing": SMOOTHING}),
    "sigmoid per token": ({"length_normalized": True}, "dpo", {"loss_type": ["sigmoid_norm"]}),
    "ipo per token": ({"loss": PreferenceLoss.ipo, "length_normalized": True}, "dpo", {"loss_type": ["ipo"]}),
    "rpo": (
        {"loss": PreferenceLoss.rpo, "alpha": ALPHA},
        "dpo",
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, ALPHA]},
    ),
    "apo_zero": ({"loss": PreferenceLoss.apo_zero}, "dpo", {"loss_type": ["apo_zero"]}),
    "simpo": (
        {"loss": PreferenceLoss.simpo, "gamma": GAMMA, "beta": 2.0},
        "cpo",
        {"loss_type": "simpo", "simpo_gamma": GAMMA, "cpo_alpha": 0.0, "beta": 2.0},
    ),
    "orpo": ({"loss": PreferenceLoss.orpo}, "orpo", {}),
    # TRL's batch holds both answers of each pair one by one, and its reference point is of the same batch
    "kto": (
        {"loss": PreferenceLoss.kto},
        "kto",
        {"per_device_train_batch_size": 2 * BATCH, "gradient_accumulation_steps": 1},
    ),
}


def _pairs():
    """Prompt and two answers that end with EOS."""
    random = np.random.default_rng(3)
    sizes = [(random.integers(3, 9), random.integers(2, 8), random.integers(2, 8)) for _ in range(STEPS * BATCH)]
    drawn = [[random.integers(3, VOCABULARY, size) for size in three] for three in sizes]
    return [(prompt, np.append(chosen, EOS), np.append(rejected, EOS)) for prompt, chosen, rejected in drawn]


def _rows(pairs):
    for number, (prompt, *answers) in enumerate(pairs):
        ids = np.concatenate([part for answer in answers for part in (prompt, answer)])
        labels = np.concatenate([part for answer in answers for part in (np.full(len(prompt), -100), answer)])
        yield TinyRow(ids, labels, [len(prompt) + len(answer) for answer in answers], [number, number])


class Keeping(PreferenceOptimization):
    """Keeps the gradients of the first step as they are before clipping."""

    def _clip(self):
        if self.steps_done == 0:
            self.first_gradients = {name: p.grad.clone() for name, p in self.network.named_parameters()}
        return super()._clip()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A policy, another reference, and under `trl/CASE` what TRL left: of one step each, of all steps in `training`."""
    place = tmp_path_factory.mktemp("trl")
    (place / "data").mkdir()
    (place / "trl").mkdir()
    models = {"model": llama_folder(place / "policy"), "reference": llama_folder(place / "reference", seed=9)}
    pairs = [[part.tolist() for part in three] for three in _pairs()]
    one_by_one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH, "max_steps": 1}
    runs = {case: (name, one_by_one | {"max_grad_norm": 1e9} | said) for case, (_, name, said) in OURS_AND_TRLS.items()}
    runs["training"] = ("dpo", {"per_device_train_batch_size": BATCH, "max_steps": STEPS, "max_grad_norm": 1.0})
    jobs = [
        {
            "trainer": trainer,
            **{name: str(folder) for name, folder in models.items()},
            "options": {"beta": 0.1, "learning_rate": 1e-3} | options,
            "pairs": pairs[: options["max_steps"] * BATCH],
            "output": str(place / "trl" / case),
        }
        for case, (trainer, options) in runs.items()
    ]
    (place / "jobs.json").write_text(json.dumps(jobs))
    command = [RIVALS, str(Path(__file__).with_name("trl_trains.py")), str(place / "jobs.json")]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return place


def _ours(place, output, options, *, clip, steps, reference_point=0.0):
    """Log and first gradients of training on the same pairs."""
    said = {"duration": f"{steps} steps", "global_batch_size": BATCH, "reference": "other", "beta": 0.1}
    said |= {"loss": PreferenceLoss.sigmoid, "schedule": ScheduleConfig(ScheduleName.constant, 0.0, 1.0)}
    said["optimizer"] = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.999], 1e-8, 0.0, clip)
    model, reference = place / "policy", place / "reference"

    def make(*parts):
        module = Keeping(*parts, model_dir=model, reference_dir=reference, data_dir=place / "data")
        module.reference_point = reference_point
        return module

    config = DpoConfig(**settings(**(said | options)))
    _, built = train_rows(list(_rows(_pairs())), config, model, output, module=make)
    log = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    return log, built.first_gradients


@pytest.mark.parametrize("case", OURS_AND_TRLS)
def test_losses_and_gradients_are_trls(place, tmp_path, case):
    """In float32, whose sums are taken in another order there: the gradient to 1e-6, its smallest tensors to 3e-6."""
    theirs = place / "trl" / case
    losses, (logged,) = (json.loads((theirs / name).read_text()) for name in ("losses.json", "log.json"))
    expected = load_file(theirs / "gradients.safetensors")
    options, point = OURS_AND_TRLS[case][0], logged.get("kl", 0.0)
    assert (point > 0) == (case == "kto")
    log, gradients = _ours(place, tmp_path, options, clip=1e9, steps=1, reference_point=point)
    assert log[0]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert gradients.keys() == expected.keys()
    differences = {name: (gradients[name] - gradient).norm() for name, gradient in expected.items()}
    for name, gradient in expected.items():
        assert differences[name] <= 3e-6 * gradient.norm(), name
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert torch.stack(list(differences.values())).norm() <= 1e-6 * whole


def test_training_with_clipping_and_adamw_follows_trls(place, tmp_path):
    log, _ = _ours(place, tmp_path, {}, clip=1.0, steps=STEPS)
    expected = json.loads((place / "trl/training/log.json").read_text())
    assert len(log) == len(expected) == STEPS
    for mine, other in zip(log, expected, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5, abs=1e-6)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert mine["chosen_logps"] == pytest.approx(other["logps/chosen"], rel=1e-5)
