"""DPO beside TRL's DPOTrainer on the same model and pairs: losses and gradient norms, step by step. Needs `trl`."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

trl = pytest.importorskip("trl", reason="trl is not installed (it lives in the environment of the benchmarks)")
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from datasets import Dataset  # noqa: E402
from tiny import VOCABULARY, TinyRow, llama_folder, settings, train_rows  # noqa: E402
from tokenizers import Tokenizer, pre_tokenizers  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback  # noqa: E402

from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName  # noqa: E402
from solar.config.preference import DpoConfig, PreferenceLoss  # noqa: E402
from solar.training.alignment import PreferenceOptimization  # noqa: E402

EOS, STEPS, BATCH = 1, 6, 2
OURS_AND_TRLS = {
    "sigmoid": ({}, {"loss_type": ["sigmoid"]}),
    "ipo per token": ({"loss": PreferenceLoss.ipo, "length_normalized": True}, {"loss_type": ["ipo"]}),
    "apo_zero": ({"loss": PreferenceLoss.apo_zero}, {"loss_type": ["apo_zero"]}),
}


def _pairs():
    random = np.random.default_rng(3)
    sizes = [(random.integers(3, 9), random.integers(2, 8), random.integers(2, 8)) for _ in range(STEPS * BATCH)]
    return [[random.integers(3, VOCABULARY, size) for size in three] for three in sizes]


def _rows(pairs):
    for number, (prompt, *answers) in enumerate(pairs):
        ended = [np.append(answer, EOS) for answer in answers]
        ids = np.concatenate([part for answer in ended for part in (prompt, answer)])
        labels = np.concatenate([part for answer in ended for part in (np.full(len(prompt), -100), answer)])
        yield TinyRow(ids, labels, [len(prompt) + len(answer) for answer in ended], [number, number])


def _trl(folder, output, pairs, options):
    words = {"<pad>": 0, "<eos>": EOS, "<unk>": 2} | {f"w{number}": number for number in range(3, VOCABULARY)}
    plain = Tokenizer(WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    said = []

    class Listening(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                said.append(logs)

    load = partial(AutoModelForCausalLM.from_pretrained, folder, attn_implementation="eager")
    columns = ("prompt", "chosen", "rejected")
    texts = [dict(zip(columns, ("".join(f" w{i}" for i in ids) for ids in three), strict=True)) for three in pairs]
    for row in texts:
        row["chosen"] += " <eos>"
        row["rejected"] += " <eos>"
    settings = {"output_dir": str(output), "max_steps": STEPS, "per_device_train_batch_size": BATCH, "beta": 0.1}
    settings |= {"learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "logging_steps": 1}
    settings |= {"save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True}
    settings |= {"gradient_checkpointing": False, "max_length": 512, "train_sampling_strategy": "sequential"}
    trl.DPOTrainer(
        load(),
        ref_model=load(),
        args=trl.DPOConfig(**settings, **options, dataloader_pin_memory=False),
        train_dataset=Dataset.from_list(texts),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=plain, **special),
        callbacks=[Listening()],
    ).train()
    return said


@pytest.mark.parametrize("case", OURS_AND_TRLS)
def test_losses_and_gradient_norms_are_trls(tmp_path, case):
    options, theirs = OURS_AND_TRLS[case]
    folder, pairs = llama_folder(tmp_path / "base"), _pairs()
    (tmp_path / "data").mkdir()
    said = {"duration": "1 epoch", "global_batch_size": BATCH, "reference": "base", "beta": 0.1}
    said |= {"loss": PreferenceLoss.sigmoid, "schedule": ScheduleConfig(ScheduleName.constant, 0.0, 1.0)}
    said["optimizer"] = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.999], 1e-8, 0.0, 1.0)
    make = partial(PreferenceOptimization, model_dir=folder, reference_dir=folder, data_dir=tmp_path / "data")
    config = DpoConfig(**settings(**(said | options)))
    train_rows(list(_rows(pairs)), config, folder, tmp_path / "out", module=make)
    ours = [json.loads(line) for line in (tmp_path / "out/logs/metrics.jsonl").read_text().splitlines()]
    expected = _trl(folder, tmp_path / "trl", pairs, theirs)
    assert len(ours) == len(expected) == STEPS
    for mine, other in zip(ours, expected, strict=True):
        assert mine["loss"] == pytest.approx(float(other["loss"]), rel=1e-5, abs=1e-6)
        assert mine["grad_norm"] == pytest.approx(float(other["grad_norm"]), rel=1e-4)
        assert mine["chosen_logps"] == pytest.approx(float(other["logps/chosen"]), rel=1e-5)
