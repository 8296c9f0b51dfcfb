"""What preference optimization costs: `python benchmarks/alignment.py [--quick] [--json]`, beside TRL's DPOTrainer.

All cases use the same Llama (8 layers, hidden size 256, 8 M parameters), pairs, AdamW, clipping and batch, float32 on
one CPU thread, one epoch. Prompts have about 90 and answers about 80 tokens, log-normal. What a case does for the
reference (a pass before training, or a second forward pass in every step) counts as its own work. SOLAR_RIVALS names a
Python that has trl.
"""

import json
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from support.llama import Llama
from support.side_by_side import Meter, arguments, compare, report_cases, wait_for_turn

BATCH, LENGTH, VOCABULARY = 4, 512, 4096
OURS, TRL = ["ours"], ["TRL, reference precomputed", "TRL"]
NEEDS = dict.fromkeys(TRL, "trl")


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Prompt, chosen and rejected answer."""
    random = np.random.default_rng(0)

    def drawn(median: int) -> np.ndarray:
        length = int(np.clip(np.exp(random.normal(np.log(median), 0.6)), 8, LENGTH // 2))
        return random.integers(3, VOCABULARY, length)

    return [(drawn(90), drawn(80), drawn(80)) for _ in range(count)]


class FromTheReferenceOn(Meter):
    """Measures from the first work for the reference, or from the first step, to the end of the last step."""

    began = False

    def begin(self) -> None:
        if not self.began:
            self.began = True
            wait_for_turn()
            self._cpu = time.process_time()


def ours(folder: Path, meter: FromTheReferenceOn, data: list[Any]) -> None:
    from tiny import TinyRow, settings, train_rows

    from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
    from solar.config.preference import DpoConfig, PreferenceLoss
    from solar.training.preference.module import PreferenceOptimization

    class Metered(PreferenceOptimization):
        def prepare(self, *places: Any) -> None:
            meter.begin()
            super().prepare(*places)

        def training_step(self, step: Any, batch_idx: int) -> None:
            super().training_step(step, batch_idx)
            meter.step_done()

    rows = []
    for number, (prompt, *answers) in enumerate(data):
        ids = np.concatenate([part for answer in answers for part in (prompt, answer)])
        labels = np.concatenate([part for answer in answers for part in (np.full(len(prompt), -100), answer)])
        rows.append(TinyRow(ids, labels, [len(prompt) + len(answer) for answer in answers], [number, number]))
    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-5, [0.9, 0.999], 1e-8, 0.0, 1.0)
    schedule = ScheduleConfig(ScheduleName.constant, 0.0, 1.0)
    said = {"duration": "1 epoch", "global_batch_size": BATCH, "optimizer": optimizer, "schedule": schedule}
    said |= {"reference": "base", "loss": PreferenceLoss.sigmoid, "beta": 0.1}
    (folder / "data").mkdir(exist_ok=True)
    model = folder / "model"
    make = partial(Metered, model_dir=model, reference_dir=model, data_dir=folder / "data")
    place = {"micro_batch_size": BATCH, "log_every_steps": 5}
    train_rows(rows, DpoConfig(**settings(**said)), model, Path(tempfile.mkdtemp(dir=folder)), module=make, **place)


def trl(folder: Path, meter: FromTheReferenceOn, data: list[Any], precompute: bool) -> None:
    from datasets import Dataset
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, VOCABULARY)}
    plain = Tokenizer(WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")

    def text(ids: np.ndarray) -> str:
        return "".join(f" w{number}" for number in ids)

    class Callback(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            meter.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step_done()

    class Metered(DPOTrainer):
        def _precompute_ref_logps(self, *places: Any, **named: Any) -> Any:
            meter.begin()
            return super()._precompute_ref_logps(*places, **named)

    columns = ("prompt", "chosen", "rejected")
    settings = {"output_dir": str(folder / "rival"), "max_steps": meter.steps, "per_device_train_batch_size": BATCH}
    settings |= {"learning_rate": 1e-5, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "beta": 0.1}
    settings |= {"logging_steps": 5, "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False}
    settings |= {"gradient_checkpointing": False, "disable_tqdm": True, "max_length": LENGTH * 2}
    load = partial(AutoModelForCausalLM.from_pretrained, folder / "model", attn_implementation="sdpa")
    Metered(
        load(),
        ref_model=None if precompute else load(),
        args=DPOConfig(**settings, precompute_ref_log_probs=precompute, dataloader_pin_memory=False),
        train_dataset=Dataset.from_list([dict(zip(columns, map(text, row), strict=True)) for row in data]),
        processing_class=tokenizer,
        callbacks=[Callback()],
    ).train()


def run(case: str, folder: Path, quick: bool) -> dict[str, float]:
    meter = FromTheReferenceOn(0, 4 if quick else 20, BATCH)
    data = pairs(meter.steps * BATCH)
    if case in OURS:
        ours(folder, meter, data)
    else:
        trl(folder, meter, data, "precomputed" in case)
    return meter.report(len(data))


def main() -> None:
    told = arguments(__doc__ or "")
    if told.case:
        report_cases(told.case, NEEDS, lambda case: run(case, told.folder, told.quick))
        return
    folder = Path(tempfile.mkdtemp(prefix="alignment-"))
    try:
        Llama(8, 256, 688, VOCABULARY, head=32).write_trainable(folder / "model")
        found = compare(__file__, [OURS, TRL], set(TRL), told.quick, 1 if told.quick else 3, folder)
    finally:
        shutil.rmtree(folder)
    pairs_ratios = [ratio for case in TRL if (ratio := found.ratio("ours", case)) is not None]
    peak_ratios = [ratio for case in TRL if (ratio := found.ratio("ours", case, "peak_mb")) is not None]
    ratios = {
        "trl_pairs_ratio": min(pairs_ratios, default=None),
        "trl_peak_ratio": max(peak_ratios, default=None),
    }
    print(json.dumps(ratios) if told.json else found.table("pairs") + "\n\n" + json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
