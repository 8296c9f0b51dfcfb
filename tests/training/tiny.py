"""Small models and rows that the training tests share."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from solar.config.duration import Duration
from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from solar.config.root import LoggerConfig, LoggerName, Strategy, TrainerConfig
from solar.config.training import Precision, TrainConfig
from solar.data.store.dataset import IGNORED
from solar.network.loading import load_network
from solar.training.batches.steps import Budget, StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.modules.step import TrainingModule
from solar.training.trainer import train

VOCABULARY = 97


@dataclass
class TinyRow:
    """A row as the data package yields it."""

    input_ids: np.ndarray
    labels: np.ndarray
    document_lengths: list[int]
    sample_ids: list[int]


def llama(seed: int = 0, **changes: object) -> PreTrainedModel:
    """A Llama of 2 layers with random weights."""
    sizes: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes)))


def llama_folder(folder: Path, **changes: object) -> Path:
    llama(**changes).save_pretrained(folder)
    (folder / "tokenizer.json").write_text('{"the tokenizer": "travels along"}')
    return folder


def row(*lengths: int, seed: int = 0, prompt: float = 0.0, sample: int = 0) -> TinyRow:
    """Documents of these lengths; the first `prompt` share of each is not trained."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY, sum(lengths))
    labels = ids.copy()
    start = 0
    for length in lengths:
        labels[start : start + max(1, int(prompt * length))] = IGNORED
        start += length
    return TinyRow(ids, labels, list(lengths), [sample] * len(lengths))


def pair(prompt: int, chosen: int, rejected: int, seed: int = 0, sample: int = 0) -> TinyRow:
    """A preference pair: the prompt stands before both answers."""
    rng = np.random.default_rng(seed)
    shared, *answers = (rng.integers(0, VOCABULARY, size) for size in (prompt, chosen, rejected))
    ids = np.concatenate([part for answer in answers for part in (shared, answer)])
    labels = ids.copy()
    labels[:prompt] = IGNORED
    labels[prompt + chosen : 2 * prompt + chosen] = IGNORED
    return TinyRow(ids, labels, [prompt + chosen, prompt + rejected], [sample, sample])


class MemoryRows:
    """A split in memory."""

    def __init__(self, rows: list[TinyRow]) -> None:
        self.items = rows
        self.row_tokens = np.array([len(item.input_ids) for item in rows])
        self.row_trained_tokens = np.array([int((item.labels != IGNORED).sum()) for item in rows])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> TinyRow:
        return self.items[index]


class InOrder:
    """Rows one after the other, over and over."""

    total_rows = None
    total_tokens = None

    def __init__(self, rows: MemoryRows) -> None:
        self.rows_per_epoch = len(rows)
        self.tokens = rows.row_tokens
        self.tokens_per_epoch = int(self.tokens.sum())

    def rows(self, start: int, count: int) -> np.ndarray:
        return np.arange(start, start + count) % self.rows_per_epoch

    def position_at_tokens(self, tokens: int) -> int:
        return int(np.searchsorted(np.cumsum(self.tokens), tokens)) + 1


def settings(**changes: object) -> dict[str, object]:
    """What every training configuration must say."""
    fields: dict[str, object] = {
        "kind": "pretrain",
        "model": "base",
        "data": "data",
        "duration": "6 steps",
        "global_batch_size": 4,
        "precision": Precision.fp32,
        "optimizer": OptimizerConfig(OptimizerName.adamw, 1e-2, [0.9, 0.95], 1e-8, 0.1, 1.0),
        "schedule": ScheduleConfig(ScheduleName.cosine, 0.2, 0.1),
        "seed": 5,
    }
    return fields | changes


class Place:
    """Where a training runs: this process, one CPU."""

    identity: str | None = None

    def __init__(self, folder: Path, stage: str = "cpt", **trainer: object) -> None:
        self.experiment, self.stage, self.run_dir = "test", stage, folder / "run"
        self.logger = LoggerConfig(LoggerName.none)
        fields: dict[str, object] = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": Strategy.single}
        fields |= {"micro_batch_size": 2, "log_every_steps": 1, "checkpoint_every_seconds": 1e9}
        self.trainer = TrainerConfig(**(fields | trainer))
        self.lines: list[str] = []

    def progress(self, line: str) -> None:
        self.lines.append(line)


def train_rows(
    rows: list[TinyRow],
    config: TrainConfig,
    model_dir: Path,
    output: Path,
    *,
    module: Callable[..., TrainingModule] = ContinuedPretraining,
    held_out: list[TinyRow] | None = None,
    stop: StopRequest | None = None,
    **trainer: object,
) -> tuple[dict[str, float], TrainingModule]:
    """`fit` on rows in memory."""
    where = Place(output, **trainer)
    data = MemoryRows(rows)
    order = InOrder(data)
    budget = Budget.of(Duration.parse(config.duration), order, config.global_batch_size)
    network = load_network(model_dir, config.precision)
    built = module(network, config, budget.schedule(config.schedule, order), lambda name: "old")
    size = where.trainer.micro_batch_size
    steps = StepDataset(data, order, built.assemble, budget, size)
    valid = ValidationRows(MemoryRows(held_out or []), built.assemble, size, config.max_valid_rows)
    return train(built, steps, valid, model_dir, output, where, stop or StopRequest()), built


def stopping_at(stop: StopRequest, step: int) -> type[ContinuedPretraining]:
    """A training that is asked to stop once it has done `step` steps."""

    class Stopping(ContinuedPretraining):
        def training_step(self, step_batches, batch_idx):
            super().training_step(step_batches, batch_idx)
            if self.steps_done == step:
                stop.received = signal.SIGTERM

    return Stopping
