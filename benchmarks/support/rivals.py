"""The trainings that ours stands beside: the loop people write by hand, HF Trainer, and TRL where it is installed."""

import tempfile
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from support.accelerated import Shape, Timer, full_rows, packed_documents


def bare_loop(shape: Shape, timer: Timer, compiled: bool) -> dict[str, float]:
    """Full rows, the family's own loss, fused AdamW, clipping; compiled where ours is."""
    network = shape.network(timer.device, torch.bfloat16, "sdpa")
    if shape.recompute:
        network.gradient_checkpointing_enable()
    run: Any = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    rows = full_rows(shape, shape.rows * timer.steps)
    for step in range(timer.steps):
        ids = torch.from_numpy(np.stack(rows[step * shape.rows : (step + 1) * shape.rows])).to(timer.device)
        run(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        timer.step_done()
    return timer.report((timer.steps - timer.warm) * shape.rows * shape.length)


def _listener(timer: Timer) -> Any:
    from transformers import TrainerCallback

    class Listener(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            timer.step_done()

    return Listener()


def _options(shape: Shape, timer: Timer) -> dict[str, Any]:
    """What all trainers of Hugging Face are given."""
    return {
        "output_dir": tempfile.mkdtemp(prefix="accelerator-"),
        "max_steps": timer.steps,
        "per_device_train_batch_size": shape.rows,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": timer.device.type == "cpu",
        "bf16": False,  # the weights are in bfloat16 themselves
        "gradient_checkpointing": shape.recompute,
        "disable_tqdm": True,
        "logging_steps": 1000,
        "dataloader_pin_memory": timer.device.type == "cuda",
    }


def _attention() -> str:
    """One kernel for all documents of a row where flash-attn is there, else a mask over the row."""
    return "flash_attention_2" if find_spec("flash_attn") else "sdpa"


def hf_trainer(shape: Shape, timer: Timer, compiled: bool) -> dict[str, float]:
    """Full rows."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(**_options(shape, timer), torch_compile=compiled)
    data = [{"input_ids": ids, "labels": ids} for ids in full_rows(shape, shape.rows * timer.steps)]
    network = shape.network(timer.device, torch.bfloat16, "sdpa")
    Trainer(network, arguments, train_dataset=data, callbacks=[_listener(timer)]).train()
    return timer.report((timer.steps - timer.warm) * shape.rows * shape.length)


def hf_flattening(shape: Shape, timer: Timer, compiled: bool) -> dict[str, float]:
    """The same rows of documents as ours, without padding: one long row with the positions of its documents."""
    from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments

    flatten = DataCollatorWithFlattening()

    def collate(rows: list[dict[str, Any]]) -> Any:
        return flatten([{"input_ids": ids} for row in rows for ids in row["documents"]])

    data = [{"documents": documents} for documents in _documents(shape, timer)]
    arguments = TrainingArguments(**_options(shape, timer), torch_compile=compiled, remove_unused_columns=False)
    network = shape.network(timer.device, torch.bfloat16, _attention())
    Trainer(network, arguments, train_dataset=data, data_collator=collate, callbacks=[_listener(timer)]).train()
    units = (timer.steps - timer.warm) * shape.rows * shape.length
    return timer.report(units) | {"attention": _attention()}  # type: ignore[dict-item]


def _documents(shape: Shape, timer: Timer) -> list[list[list[int]]]:
    """For each row its documents as ids, with the lengths that ours has."""
    count = shape.rows * timer.steps
    return [
        [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
        for ids, lengths in zip(full_rows(shape, count), packed_documents(shape, count), strict=True)
    ]


def _tokenizer(size: int) -> Any:
    """One token a word: `w17` is token 17."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, size)}
    plain = Tokenizer(WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=plain, **special)


def _liger(timer: Timer) -> bool:
    return timer.device.type == "cuda" and find_spec("liger_kernel") is not None


def trl_sft(shape: Shape, timer: Timer, compiled: bool) -> dict[str, float]:
    """Packed by TRL, without padding, with liger's kernels where they are installed. Tokens are those it computes."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokens = 0

    class Counting(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
            nonlocal tokens
            tokens += inputs["input_ids"].numel() if timer.done >= timer.warm else 0
            return super().compute_loss(model, inputs, *others, **named)

    rows = [{"input_ids": ids} for documents in _documents(shape, timer) for ids in documents]
    packing = {"packing": True, "padding_free": True, "max_length": shape.length, "use_liger_kernel": _liger(timer)}
    arguments = SFTConfig(**_options(shape, timer), **packing, torch_compile=compiled)
    Counting(
        shape.network(timer.device, torch.bfloat16, _attention()),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(shape.vocabulary),
        callbacks=[_listener(timer)],
    ).train()
    return timer.report(tokens) | {"attention": _attention(), "liger": _liger(timer)}  # type: ignore[dict-item]


def trl_dpo(shape: Shape, timer: Timer, compiled: bool, precomputed: bool = False) -> dict[str, float]:
    """Pairs with prompts of half a row. The reference is a second model in memory, or was computed before."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    half, quarter = shape.length // 2, shape.length // 4
    rows = []
    for ids in full_rows(shape, shape.rows * timer.steps):
        words = [f"w{number}" for number in ids]
        parts = words[:half], words[half : half + quarter], words[half + quarter :]
        rows.append(dict(zip(("prompt", "chosen", "rejected"), map(" ".join, parts), strict=True)))
        rows[-1] |= {name: f" {rows[-1][name]} <eos>" for name in ("chosen", "rejected")}
    settings = {"max_length": shape.length, "precompute_ref_log_probs": precomputed, "beta": 0.1}
    settings |= {"padding_free": _attention() != "sdpa", "use_liger_kernel": _liger(timer) and not precomputed}
    arguments = DPOConfig(**_options(shape, timer), **settings, torch_compile=compiled)
    DPOTrainer(
        shape.network(timer.device, torch.bfloat16, _attention()),
        ref_model=None if precomputed else shape.network(timer.device, torch.bfloat16, _attention()).eval(),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(shape.vocabulary),
        callbacks=[_listener(timer)],
    ).train()
    return timer.report((timer.steps - timer.warm) * shape.rows) | {"attention": _attention()}  # type: ignore[dict-item]


def trl_dpo_precomputed(shape: Shape, timer: Timer, compiled: bool) -> dict[str, float]:
    """The reference's pass lies before the measured steps, as ours does."""
    return trl_dpo(shape, timer, compiled, precomputed=True)
