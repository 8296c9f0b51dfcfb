"""What `benchmarks/accelerator.py` measures: shapes, rows, seconds and memory, and our own training through Lightning.

Weights are random and made on the device; nothing is saved. T tokens of a row, B rows of a batch.
"""

import gc
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """A Llama or a Mistral by its sizes."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    rows: int
    length: int
    recompute: bool = False
    """Whether activations are recomputed in the backward pass."""

    def network(self, device: torch.device, dtype: torch.dtype, attention: str) -> PreTrainedModel:
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.length,
            tie_word_embeddings=False,
            use_cache=False,
        )
        torch.manual_seed(0)
        with torch.device(device):
            network = LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation=attention)
        trained: PreTrainedModel = network.train()
        return trained


class Done(Exception):
    """Ends a training after the steps that are measured, before anything is saved."""


@dataclass
class Timer:
    """Seconds and peak memory between the end of step `warm` and the end of step `steps`."""

    device: torch.device
    warm: int
    steps: int
    done: int = 0
    began: float = 0.0
    seconds: float = 0.0
    peak_gb: float = 0.0
    marks: dict[str, float] = field(default_factory=dict)

    def step_done(self) -> bool:
        """Whether this was the last step."""
        from solar.training.memory import peak_bytes, reset_peak

        self.done += 1
        if self.done == self.warm:
            synchronise(self.device)
            reset_peak(self.device)
            self.began = time.perf_counter()
        if self.done == self.steps:
            synchronise(self.device)
            self.seconds = time.perf_counter() - self.began
            self.peak_gb = (peak_bytes(self.device) or 0) / 1e9
        return self.done == self.steps

    def report(self, units: float) -> dict[str, float]:
        """`units`: work of the measured steps."""
        return {"per_second": units / self.seconds, "seconds": self.seconds, "peak_gb": self.peak_gb, **self.marks}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def full_rows(shape: Shape, count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(3, shape.vocabulary, (count, shape.length)))


def packed_documents(shape: Shape, count: int) -> list[list[int]]:
    """Lengths of the documents of each row, log-normal as answers are, together T."""
    random, rows = np.random.default_rng(1), []
    for _ in range(count):
        lengths: list[int] = []
        while (left := shape.length - sum(lengths)) > 0:
            lengths.append(min(left, max(8, int(random.lognormal(np.log(shape.length / 16), 0.75)))))
        rows.append(lengths)
    return rows


def ours(shape: Shape, timer: Timer, kind: str, compiled: bool, adapter: str | None = None) -> dict[str, float]:
    """`kind`: pretrain, sft (packed rows) or dpo (pairs that share half of a row as their prompt).

    `adapter`: `floats`, or the form of a base in few bits; None trains all weights.
    """
    from tiny import InOrder, MemoryRows, Place, settings

    from solar.config.duration import Duration
    from solar.config.training import Precision, PretrainConfig
    from solar.network.attention import NAME
    from solar.training.batches.steps import Budget, StepDataset
    from solar.training.batches.validation_rows import ValidationRows
    from solar.training.distributed.sharding import decoder_layers
    from solar.training.interrupt import StopRequest
    from solar.training.modules.recomputation import recompute_activations
    from solar.training.trainer import train

    config: Any = PretrainConfig(**_settings(settings, timer, shape, Precision.bf16_true))
    network = shape.network(timer.device, torch.bfloat16, NAME)
    if adapter is not None:
        _adapt(network, adapter, timer.device)
    if shape.recompute:
        recompute_activations(network, False)
    if compiled:
        for layer in decoder_layers(network):
            layer.compile(dynamic=True)
    rows = MemoryRows(_rows(shape, timer, kind))
    order = InOrder(rows)
    budget = Budget.of(Duration.parse(config.duration), order, config.global_batch_size)
    module = _module(kind, timer)(network, config, budget.schedule(config.schedule, order), lambda name: "old")
    steps = StepDataset(rows, order, module.assemble, budget, shape.rows)  # type: ignore[arg-type]
    held_out = ValidationRows([], module.assemble, shape.rows, 0)
    folder = Path(tempfile.mkdtemp(prefix="accelerator-"))
    accelerator = "gpu" if timer.device.type == "cuda" else "cpu"
    place: Any = Place(folder, accelerator=accelerator, micro_batch_size=shape.rows, log_every_steps=1000)
    with suppress(Done):
        train(module, steps, held_out, folder, folder, place, StopRequest())
    measured = timer.steps - timer.warm
    timer.marks["flops_per_second"] = module.flops_done / module.steps_done * measured / timer.seconds
    units = measured * shape.rows * (1 if kind == "dpo" else shape.length)
    return timer.report(units) | {"attention": "; ".join(module.decoders[0].choices)}  # type: ignore[dict-item]


def _adapt(network: PreTrainedModel, adapter: str, device: torch.device) -> None:
    from solar.config.training import AdapterConfig, FrozenBase, Precision
    from solar.network.adapter import add_adapter
    from solar.network.quantised.base import quantise

    if adapter != "floats":
        quantise(network, FrozenBase(adapter), Precision.bf16_true, device)
    add_adapter(network, AdapterConfig(rank=16), seed=0)


def _settings(settings: Callable[..., dict[str, Any]], timer: Timer, shape: Shape, precision: Any) -> dict[str, Any]:
    from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName

    return settings(
        duration=f"{timer.steps + 1} steps",
        global_batch_size=shape.rows,
        precision=precision,
        optimizer=OptimizerConfig(OptimizerName.adamw, 1e-5, [0.9, 0.95], 1e-8, 0.1, 1.0),
        schedule=ScheduleConfig(ScheduleName.constant, 0.0, 1.0),
    )


def _rows(shape: Shape, timer: Timer, kind: str) -> list[Any]:
    from tiny import TinyRow

    count = shape.rows * (timer.steps + 1)
    if kind == "pretrain":
        return [token_row(ids, number) for number, ids in enumerate(full_rows(shape, count))]
    if kind == "sft":
        rows = []
        for number, (ids, lengths) in enumerate(
            zip(full_rows(shape, count), packed_documents(shape, count), strict=True)
        ):
            labels = ids.copy()
            labels[np.cumsum([0, *lengths[:-1]])] = -100
            rows.append(TinyRow(ids, labels, lengths, [number] * len(lengths)))
        return rows
    return [pair_row(ids, number) for number, ids in enumerate(full_rows(shape, count))]


def token_row(ids: np.ndarray, number: int) -> Any:
    """One document, whose tokens are all trained."""
    from tiny import TinyRow

    return TinyRow(ids, ids.copy(), [len(ids)], [number])


def pair_row(ids: np.ndarray, number: int) -> Any:
    """A prompt of half of the row, and two answers of a quarter each."""
    from tiny import TinyRow

    half, quarter = len(ids) // 2, len(ids) // 4
    prompt, chosen, rejected = ids[:half], ids[half : half + quarter], ids[half + quarter :]
    both = np.concatenate([prompt, chosen, prompt, rejected])
    labels = both.copy()
    labels[:half] = labels[half + quarter : 2 * half + quarter] = -100
    return TinyRow(both, labels, [half + quarter, half + len(rejected)], [number, number])


def _module(kind: str, timer: Timer) -> Any:
    from solar.network.cross_entropy import segment_sums
    from solar.network.microbatch import from_pairs
    from solar.training.modules.next_token import ContinuedPretraining

    class Measured(ContinuedPretraining):
        def training_step(self, step: Any, batch_idx: int) -> None:
            super().training_step(step, batch_idx)
            if timer.step_done():
                raise Done

    class Pairs(Measured):
        """DPO with beta 0.1 against a reference of log-probabilities 0, known before as in every training of ours."""

        assemble = staticmethod(from_pairs)

        def loss_sum(self, batch: Any) -> Any:
            logps_N = self.head().logps(self.hidden(batch), batch.targets_N)
            chosen, rejected = segment_sums(logps_N, batch.answers_N, batch.answers).view(-1, 2).unbind(1)
            return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).sum(), {}

        def divisor(self, step: Any) -> int:
            return int(step.rows)

    return Pairs if kind == "dpo" else Measured
