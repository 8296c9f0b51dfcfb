"""What training costs: `python benchmarks/training.py [--quick] [--json]`; beside a bare loop, HF Trainer, TRL.

All cases use the same Llama (8 layers, hidden 256, 8 M parameters), data, AdamW, clipping and batch, float32 on one
CPU thread. Continued pretraining reads full rows of 512 tokens; SFT reads rows of 24 to 512 tokens, log-normal as real
answers are, and only real tokens count, not padding. Rivals that are not installed are left out; SOLAR_RIVALS names a
Python that has them.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from support.llama import Llama
from support.side_by_side import Meter, arguments, compare, report_cases

LENGTH, VOCABULARY, LARGE_VOCABULARY = 512, 4096, 32000
OURS = ["ours", "ours SFT", "ours, 32k vocabulary"]
BARE = ["bare loop", "bare loop SFT, padded", "bare loop, 32k vocabulary"]
HF, TRL = ["HF Trainer"], ["TRL SFT, length-grouped", "TRL SFT, packed"]
NEEDS = dict.fromkeys(HF, "accelerate") | dict.fromkeys(TRL, "trl")


def full_rows(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(3, VOCABULARY, (count, LENGTH)))


def ragged_rows(count: int) -> list[np.ndarray]:
    """Lengths log-normal around 144 tokens, 24 to 512."""
    random = np.random.default_rng(1)
    lengths = np.clip(np.exp(random.normal(np.log(144), 0.75, count)), 24, LENGTH).astype(int)
    return [random.integers(3, VOCABULARY, length) for length in lengths]


def ours(folder: Path, meter: Meter, rows: list[np.ndarray]) -> dict[str, float]:
    from tiny import TinyRow, settings, train_rows

    from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
    from solar.config.training import PretrainConfig
    from solar.training.modules.next_token import ContinuedPretraining, InstructionTuning

    full = all(len(ids) == LENGTH for ids in rows)

    class Metered(ContinuedPretraining if full else InstructionTuning):  # type: ignore[misc]
        def training_step(self, step: Any, batch_idx: int) -> None:
            super().training_step(step, batch_idx)
            if step.micro_batches:
                meter.step_done()

    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.95], 1e-8, 0.1, 1.0)
    schedule = ScheduleConfig(ScheduleName.constant, 0.0, 1.0)
    said = {
        "duration": f"{meter.steps} steps",
        "global_batch_size": meter.batch,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    data = [TinyRow(ids, np.concatenate([[-100], ids[1:]]), [len(ids)], [n]) for n, ids in enumerate(rows)]
    output = Path(tempfile.mkdtemp(dir=folder))
    place = {"micro_batch_size": meter.batch, "log_every_steps": 5}
    train_rows(data, PretrainConfig(**settings(**said)), folder / "model", output, module=Metered, **place)
    return meter.report(sum(len(ids) for ids in rows[meter.warm * meter.batch : meter.steps * meter.batch]))


def bare_loop(folder: Path, meter: Meter, rows: list[np.ndarray]) -> dict[str, float]:
    """The loop that people write by hand: rows of a batch are padded to the longest."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="sdpa").train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    for number in range(meter.steps):
        batch = rows[number * meter.batch : (number + 1) * meter.batch]
        input_ids, labels, mask = padded(batch)
        options = {} if mask.all() else {"attention_mask": mask}
        model(input_ids=input_ids, labels=labels, use_cache=False, **options).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter.step_done()
    return meter.report(sum(len(ids) for ids in rows[meter.warm * meter.batch : meter.steps * meter.batch]))


def padded(batch: list[np.ndarray]) -> tuple[Any, Any, Any]:
    import torch

    width = max(len(ids) for ids in batch)
    input_ids, labels = np.zeros((len(batch), width), np.int64), np.full((len(batch), width), -100, np.int64)
    mask = np.zeros((len(batch), width), np.int64)
    for place, ids in enumerate(batch):
        input_ids[place, : len(ids)] = labels[place, : len(ids)] = ids
        mask[place, : len(ids)] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(labels), torch.from_numpy(mask)


def rival_settings(folder: Path, meter: Meter) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "rival"),
        "max_steps": meter.steps,
        "per_device_train_batch_size": meter.batch,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def metered_callback(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step_done()

    return Callback()


def hf_trainer(folder: Path, meter: Meter, rows: list[np.ndarray]) -> dict[str, float]:
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="sdpa")
    Trainer(
        model,
        TrainingArguments(**rival_settings(folder, meter)),
        train_dataset=[{"input_ids": ids, "labels": ids} for ids in rows],
        data_collator=lambda items: dict(
            zip(("input_ids", "labels"), padded([item["input_ids"] for item in items])[:2], strict=True)
        ),
        callbacks=[metered_callback(meter)],
    ).train()
    return meter.report((meter.steps - meter.warm) * meter.batch * LENGTH)


def trl_sft(folder: Path, meter: Meter, rows: list[np.ndarray], packed: bool) -> dict[str, float]:
    """Counts real tokens where TRL's own collator makes the batch."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    mode = {"packing": True, "max_length": 2048} if packed else {"train_sampling_strategy": "group_by_length"}
    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="sdpa")
    own = rival_settings(folder, meter) | ({"per_device_train_batch_size": 1} if packed else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=empty_tokenizer(), pad_token="<pad>", eos_token="<eos>")
    trainer = SFTTrainer(
        model,
        SFTConfig(**own, **({"max_length": LENGTH} | mode)),
        train_dataset=Dataset.from_dict({"input_ids": [ids.tolist() for ids in rows]}),
        processing_class=tokenizer,
        callbacks=[metered_callback(meter)],
    )
    seen: list[int] = []
    collate = trainer.data_collator

    def counting(items: Any) -> Any:
        seen.append(sum(len(item["input_ids"]) for item in items))
        return collate(items)

    trainer.data_collator = counting
    trainer.train()
    return meter.report(sum(seen[meter.warm : meter.steps]))


def empty_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    return Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))


def run(case: str, folder: Path, quick: bool) -> dict[str, float]:
    short = Meter(1, 3, 4) if "SFT" in case else Meter(2, 5, 2)
    meter = short if quick else Meter(3, 24, 4)
    count = meter.steps * meter.batch
    if "32k" in case:  # only the peak is measured
        meter, folder = Meter(0, 1, 4), folder / "32k"
        return (ours if case in OURS else bare_loop)(folder, meter, full_rows(meter.batch))
    if case in TRL:
        packed = "packed" in case
        if packed and quick:  # a step is a row of 2,048 tokens
            meter = Meter(1, 3, 2)
        return trl_sft(folder, meter, ragged_rows(count * 4 if packed else count), packed)
    if case in HF:
        return hf_trainer(folder, meter, full_rows(count))
    rows = ragged_rows(count) if "SFT" in case else full_rows(count)
    return (ours if case in OURS else bare_loop)(folder, meter, rows)


def main() -> None:
    told = arguments(__doc__ or "")
    if told.case:
        report_cases(told.case, NEEDS, lambda case: run(case, told.folder, told.quick))
        return
    folder = Path(tempfile.mkdtemp(prefix="training-"))
    try:
        for place, vocabulary in (folder, VOCABULARY), (folder / "32k", LARGE_VOCABULARY):
            Llama(8, 256, 688, vocabulary, head=32).write_trainable(place / "model")
        bare = [case for case in BARE if "padded" not in case or not told.quick]
        groups = [OURS, [*HF, *TRL], bare]
        found = compare(__file__, groups, {*HF, *TRL}, told.quick, 1 if told.quick else 3, folder)
    finally:
        shutil.rmtree(folder)
    ratios = {
        "bare_ratio": found.ratio("ours", "bare loop"),
        "hf_ratio": found.ratio("ours", "HF Trainer"),
        "litgpt_ratio": None,  # its newest release needs an older transformers: docs/benchmarks.md
        "trl_ratio": found.ratio("ours SFT", "TRL SFT, length-grouped"),
        "trl_packed_ratio": found.ratio("ours SFT", "TRL SFT, packed"),
        "padded_ratio": found.ratio("ours SFT", "bare loop SFT, padded"),
        "peak_ratio": found.ratio("ours, 32k vocabulary", "bare loop, 32k vocabulary", "peak_mb"),
        "startup_ratio": found.ratio("ours", "bare loop", "first_step_cpu_seconds"),
    }
    print(json.dumps(ratios) if told.json else found.table("tokens") + "\n\n" + json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
