"""What training costs: `python benchmarks/training.py [--quick] [--json]`; beside a bare loop, HF Trainer, TRL.

The same Llama (8 layers, hidden 256, 8 M parameters), data, AdamW, clipping and batch for all, float32 on one CPU
thread. Continued pretraining on full rows of 512 tokens; SFT on rows of 24 to 512 tokens, log-normal as real answers
are, whose real (not padding) tokens count. Rivals that are not installed are left out; SOLAR_RIVALS names a Python that
has them.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from support.side_by_side import Meter, arguments, compare

WARM = 3
BATCH, LENGTH, VOCABULARY, LARGE_VOCABULARY = 4, 512, 4096, 32000
CASES = {
    "ours": False,
    "bare loop": False,
    "HF Trainer": True,
    "ours, 32k vocabulary": False,
    "bare loop, 32k vocabulary": False,
    "ours SFT": False,
    "bare loop SFT, padded": False,
    "TRL SFT, length-grouped": True,
    "TRL SFT, packed": True,
}


def steps(quick: bool) -> int:
    return 10 if quick else 24


def full_rows(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(3, VOCABULARY, (count, LENGTH)))


def ragged_rows(count: int) -> list[np.ndarray]:
    """Lengths log-normal around 144 tokens, 24 to 512."""
    random = np.random.default_rng(1)
    lengths = np.clip(np.exp(random.normal(np.log(144), 0.75, count)), 24, LENGTH).astype(int)
    return [random.integers(3, VOCABULARY, length) for length in lengths]


def make_model(folder: Path, vocabulary: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": LENGTH}
    LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False)).save_pretrained(folder)


def ours(folder: Path, meter: Meter, rows: list[np.ndarray], sft: bool) -> dict[str, float]:
    from tiny import TinyRow, settings, train_rows

    from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
    from solar.config.training import PretrainConfig
    from solar.training.language import ContinuedPretraining, InstructionTuning

    class Metered(InstructionTuning if sft else ContinuedPretraining):  # type: ignore[misc]
        def training_step(self, step: Any, batch_idx: int) -> None:
            super().training_step(step, batch_idx)
            if step.micro_batches:
                meter.step_done()

    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.95], 1e-8, 0.1, 1.0)
    schedule = ScheduleConfig(ScheduleName.constant, 0.0, 1.0)
    said = {
        "duration": f"{meter.steps} steps",
        "global_batch_size": BATCH,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    data = [TinyRow(ids, np.concatenate([[-100], ids[1:]]), [len(ids)], [n]) for n, ids in enumerate(rows)]
    output = Path(tempfile.mkdtemp(dir=folder))
    place = {"micro_batch_size": BATCH, "log_every_steps": 5}
    train_rows(data, PretrainConfig(**settings(**said)), folder / "model", output, module=Metered, **place)
    return meter.report(sum(len(ids) for ids in rows[WARM * BATCH : meter.steps * BATCH]))


def bare_loop(folder: Path, meter: Meter, rows: list[np.ndarray]) -> dict[str, float]:
    """What one writes by hand: rows of a batch padded to the longest."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="sdpa").train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    for number in range(meter.steps):
        batch = rows[number * BATCH : (number + 1) * BATCH]
        input_ids, labels, mask = padded(batch)
        options = {} if mask.all() else {"attention_mask": mask}
        model(input_ids=input_ids, labels=labels, use_cache=False, **options).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter.step_done()
    return meter.report(sum(len(ids) for ids in rows[WARM * BATCH : meter.steps * BATCH]))


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
        "per_device_train_batch_size": BATCH,
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


def metered_callback(meter: Meter, counted: dict[str, float] | None = None) -> Any:
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
    return meter.report((meter.steps - WARM) * BATCH * LENGTH)


def trl_sft(folder: Path, meter: Meter, rows: list[np.ndarray], packed: bool) -> dict[str, float]:
    """Real tokens are counted where TRL's own collator makes the batch."""
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
    return meter.report(sum(seen[WARM : meter.steps]))


def empty_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    return Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))


def run(case: str, folder: Path, quick: bool) -> dict[str, float]:
    if "32k" in case:
        few, folder = Meter(WARM, WARM + 1), folder / "32k"
        rows = full_rows(few.steps * BATCH)
        return ours(folder, few, rows, sft=False) if "ours" in case else bare_loop(folder, few, rows)
    meter = Meter(WARM, steps(quick))
    count = meter.steps * BATCH
    if case == "ours":
        return ours(folder, meter, full_rows(count), sft=False)
    if case == "bare loop":
        return bare_loop(folder, meter, full_rows(count))
    if case == "HF Trainer":
        return hf_trainer(folder, meter, full_rows(count))
    if case == "ours SFT":
        return ours(folder, meter, ragged_rows(count), sft=True)
    if case == "bare loop SFT, padded":
        return bare_loop(folder, meter, ragged_rows(count))
    many = ragged_rows(count * 4 if "packed" in case else count)
    return trl_sft(folder, meter, many, packed="packed" in case)


def main() -> None:
    told = arguments(__doc__ or "")
    if told.case:
        try:
            import trl  # noqa: F401
        except ImportError:
            if CASES[told.case] and "TRL" in told.case:
                sys.exit(3)
        print(json.dumps(run(told.case, told.folder, told.quick)))
        return
    folder = Path(tempfile.mkdtemp(prefix="training-"))
    try:
        make_model(folder / "model", VOCABULARY)
        make_model(folder / "32k/model", LARGE_VOCABULARY)
        cases = {case: (lambda rival=rival: rival) for case, rival in CASES.items()}
        found = compare(__file__, cases, told.quick, 1 if told.quick else 3, folder)
    finally:
        shutil.rmtree(folder)
    ratios = {
        "bare_ratio": found.ratio("ours", "bare loop"),
        "hf_ratio": found.ratio("ours", "HF Trainer"),
        "litgpt_ratio": None,  # its newest release cannot stand beside a current transformers: docs/benchmarks.md
        "trl_ratio": found.ratio("ours SFT", "TRL SFT, length-grouped"),
        "trl_packed_ratio": found.ratio("ours SFT", "TRL SFT, packed"),
        "padded_ratio": found.ratio("ours SFT", "bare loop SFT, padded"),
        "peak_ratio": found.ratio("ours, 32k vocabulary", "bare loop, 32k vocabulary", "peak_mb"),
        "startup_ratio": found.ratio("ours", "bare loop", "first_step_cpu_seconds"),
    }
    print(json.dumps(ratios) if told.json else found.table("tokens") + "\n\n" + json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
