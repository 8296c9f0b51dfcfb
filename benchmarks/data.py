"""What preparing and reading data costs: `python benchmarks/data.py [--quick] [--json]`.

`tokenize_ratio`: seconds that `datasets.load_dataset` and `.map` take to tokenise a JSONL file (fast tokenizer, batches
of 1,000, no packing; one process, in a full run also two: the faster counts), divided by the seconds that `prepare`
takes from the same file to packed rows with their index. Above 1, `prepare` is faster. Rounds alternate; the median
ratio counts.
`tokenize_cpu_ratio`: the same in CPU seconds, which other work on the machine does not change.
`wait_share`: the share of a training step (Llama of 11 M parameters, fp32, 2 rows of 512 tokens) that is spent waiting
for its batch from a mixture of two sources, without worker processes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

THEIRS = """
import json, os, sys, time
from pathlib import Path
import datasets
from transformers import AutoTokenizer
source, tokenizer_folder, cache, processes = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
def encode(batch):
    return {"input_ids": [ids + [tokenizer.eos_token_id] for ids in tokenizer(batch["text"]).input_ids]}
begun, begun_cpu = time.perf_counter(), sum(os.times()[:4])
rows = datasets.load_dataset("json", data_files=source, split="train", cache_dir=cache)
done = rows.map(encode, batched=True, remove_columns=rows.column_names, num_proc=int(processes) or None)
seconds = time.perf_counter() - begun
cpu = sum(os.times()[:4])
tokens = sum(len(ids) for ids in done["input_ids"])
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu - begun_cpu, "tokens": tokens}))
"""
OURS = """
import json, os, sys, time
from pathlib import Path
from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
from solar.data.prepare import prepare
import solar.data.store.dataset
source, tokenizer_folder, output = sys.argv[1:]
config = PrepareDataConfig(
    kind="prepare_data", sources={"text": SourceConfig(path=source, format=Format.text)}, tokenizer="tokenizer",
    task=Task.pretrain, sequence_length=512, packing=Packing.concatenate, held_out_fraction=0.0, seed=0,
)
begun, begun_cpu = time.perf_counter(), sum(os.times()[:4])
metrics = prepare(config, {}, Path(tokenizer_folder), Path(output))
seconds = time.perf_counter() - begun
cpu = sum(os.times()[:4])
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu - begun_cpu, "tokens": metrics["splits"]["train"]["tokens"]}))
"""


def corpus(folder: Path, megabytes: int) -> Path:
    """The standard library's own sources as documents: every Python has this real code and English."""
    path, size = folder / "text.jsonl", 0
    with path.open("w", encoding="utf-8") as file:
        for source in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
            if "site-packages" in source.parts or size > megabytes * 10**6:
                continue
            text = source.read_text(encoding="utf-8", errors="ignore").replace("\x00", "")
            if text.strip():
                size += len(text)
                file.write(json.dumps({"text": text}) + "\n")
    return path


def in_a_process(program: str, *arguments: object) -> dict[str, Any]:
    """What a fresh process prints. The process starts with warm files and a cold cache."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return dict(json.loads(found.stdout.splitlines()[-1]))


def tokenize(text: Path, tokenizer: Path, folder: Path, rounds: int, processes_of_theirs: list[int]) -> dict[str, Any]:
    """Alternating rounds of theirs with these numbers of processes (0: this one), and ours."""
    ratios, cpu_ratios, ours, theirs = [], [], [], []
    for number in range(rounds):
        output = folder / f"ours{number}"
        output.mkdir()
        own = in_a_process(OURS, text, tokenizer, output)
        rival = []
        for processes in processes_of_theirs:
            cache = folder / f"theirs{number}-{processes}"
            rival.append(in_a_process(THEIRS, text, tokenizer, cache, processes))
            # equal except for texts that hold `</s>` and the like: datasets makes special tokens of them
            assert abs(rival[-1]["tokens"] / own["tokens"] - 1) < 1e-4, (rival[-1], own)
            shutil.rmtree(cache)
        best = min(found["seconds"] for found in rival)
        ratios.append(best / own["seconds"])
        cpu_ratios.append(min(found["cpu_seconds"] for found in rival) / own["cpu_seconds"])
        ours.append(own["tokens"] / own["seconds"])
        theirs.append(own["tokens"] / best)
    return {
        "tokenize_ratio": statistics.median(ratios),
        "tokenize_ratio_worst": min(ratios),
        "tokenize_cpu_ratio": statistics.median(cpu_ratios),
        "prepare_tokens_per_second": statistics.median(ours),
        "datasets_map_tokens_per_second": statistics.median(theirs),
    }


def reading(folder: Path, text: Path, tokenizer: Path, steps: int) -> dict[str, Any]:
    """A training loop over a mixture, and what its batches cost."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
    from solar.data.order.order import Order
    from solar.data.prepare import prepare
    from solar.data.store.dataset import TokenDataset
    from solar.network.attention import NAME
    from solar.network.decoder import Decoder
    from solar.network.microbatch import from_rows
    from solar.training.batches.steps import Budget, StepDataset, step_loader

    sources = {
        "all": SourceConfig(path=str(text), format=Format.text, weight=0.7),
        "some": SourceConfig(path=str(text), format=Format.text, weight=0.3, max_samples=100),
    }
    config = PrepareDataConfig(
        kind="prepare_data", sources=sources, tokenizer="t", task=Task.pretrain, sequence_length=512,
        packing=Packing.best_fit, held_out_fraction=0.0, seed=0,
    )  # fmt: skip
    mixture = folder / "mixture"
    mixture.mkdir()
    prepare(config, {}, tokenizer, mixture)
    data = TokenDataset(mixture, "train")
    order = Order.of(data, 0)
    batch_size, batches = 2, 2000

    begun = time.perf_counter()
    for batch in range(batches):
        order.rows(batch * batch_size, batch_size)
    order_seconds = (time.perf_counter() - begun) / batches
    step_rows = StepDataset(data, order, from_rows, Budget(batches * batch_size, batch_size), batch_size)
    loader = step_loader(step_rows, 0, num_workers=0)
    begun = time.perf_counter()
    for number, _ in enumerate(loader, 1):
        if number == 500:
            break
    batch_seconds = (time.perf_counter() - begun) / number

    torch.set_num_threads(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=data.header.vocab_size, hidden_size=256, intermediate_size=768, num_hidden_layers=8,
            num_attention_heads=8, num_key_value_heads=4, attn_implementation=NAME,
        )
    )  # fmt: skip
    decoder = Decoder(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    waited, worked, training_steps = [], [], iter(loader)
    for _ in range(steps + 1):
        begun = time.perf_counter()
        (micro_batch,) = next(training_steps).micro_batches
        ready = time.perf_counter()
        loss_sum, _ = decoder.head.loss_sum(decoder.trained_states(micro_batch), micro_batch.targets_N)
        (loss_sum / micro_batch.trained_tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        waited.append(ready - begun)
        worked.append(time.perf_counter() - ready)
    return {
        "wait_share": sum(waited[1:]) / sum(waited[1:] + worked[1:]),
        "order_us_per_batch": order_seconds * 1e6,
        "batch_ms": batch_seconds * 1e3,
        "step_ms": statistics.median(worked[1:]) * 1e3,
        "shares": order.shares(0, order.position_at_tokens(1_000_000)),
    }


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a small corpus, one round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from solar.data.encode.tokenizer import train

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = corpus(folder, 4 if options.quick else 24)
        (folder / "tokenizer").mkdir()
        train(folder, 8192, "solar", folder / "tokenizer")
        found = tokenize(text, folder / "tokenizer", folder, *((1, [0]) if options.quick else (3, [0, 2])))
        found |= reading(folder, text, folder / "tokenizer", 5 if options.quick else 20)
    if options.json:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key:32} {value if isinstance(value, dict) else f'{value:,.4g}'}")


if __name__ == "__main__":
    main()
