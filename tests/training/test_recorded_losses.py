"""T-G5. Losses that were recorded once: a new release of a library, or a change of ours, that moves them is noticed."""

import json
from pathlib import Path

import pytest
from tiny import llama_folder, pair, row, settings, train_rows

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.training import PretrainConfig, SftConfig
from solar.training.modules.next_token import ContinuedPretraining, InstructionTuning
from solar.training.preference.module import PreferenceOptimization

ROWS = {
    "pretrain": [row(9, 6, 5, seed=n, sample=n) for n in range(16)],
    "sft": [row(5 + n, seed=n, prompt=0.4, sample=n) for n in range(16)],
    "dpo": [pair(4 + n % 3, 5, 3 + n % 4, seed=n, sample=n) for n in range(16)],
}
# With torch 2.13.0 and transformers 5.23.0, on the CPU. At step 1 nothing but the forward pass is in the number.
RECORDED = {
    "pretrain": {1: 5.347540014, 10: 4.825196659, 50: 3.263930377},
    "sft": {1: 5.375041288, 10: 4.577321936, 50: 2.35924417},
    "dpo": {1: 0.693147182, 10: 0.457298696, 50: 0.104638919},
}
TOLERANCE = {1: 1e-5, 10: 1e-4, 50: 1e-3}
"""Step -> relative difference: each step adds the rounding of other kernels to the weights."""


@pytest.mark.parametrize("kind", ROWS)
def test_the_losses_are_those_that_were_recorded(tmp_path: Path, kind: str) -> None:
    base = llama_folder(tmp_path / "base")
    (tmp_path / "data").mkdir()
    adamw = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.95], 1e-8, 0.1, 1.0)
    fields = settings(duration="50 steps", optimizer=adamw)
    if kind == "dpo":
        config = DpoConfig(**fields, reference="base", loss=PreferenceLoss.sigmoid, beta=0.1)
        more = {"model_dir": base, "reference_dir": base, "data_dir": tmp_path / "data"}
        train_rows(
            *(ROWS[kind], config, base, tmp_path / "out"), module=lambda *rest: PreferenceOptimization(*rest, **more)
        )
    else:
        config = (PretrainConfig if kind == "pretrain" else SftConfig)(**fields)
        module = ContinuedPretraining if kind == "pretrain" else InstructionTuning
        train_rows(ROWS[kind], config, base, tmp_path / "out", module=module)
    lines = [json.loads(line) for line in (tmp_path / "out/logs/metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if line["step"] in TOLERANCE}
    assert losses.keys() == TOLERANCE.keys()
    for step, loss in losses.items():
        assert loss == pytest.approx(RECORDED[kind][step], rel=TOLERANCE[step]), step
