"""Log-probabilities of the reference model: computed once, kept beside the training that needs them.

A row's value is computed in the same micro-batch in which training first meets it, so that a policy that still equals
the reference has a margin of exactly 0.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from solar.errors import StageError
from solar.network.microbatch import MicroBatch, from_pairs
from solar.training.batches.steps import Rows, StepDataset
from solar.training.batches.validation_rows import ValidationRows

AnswerLogps = Callable[[MicroBatch], Tensor]
"""Micro-batch of P pairs -> log-probabilities [P, 2] of chosen and rejected answers."""
SumOverRanks = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Key:
    """What cached values depend on."""

    model: str
    data: str
    precision: str
    rows: int | None = None
    """Rows that training meets; None: all there are."""
    seed: int | None = None

    def difference(self, other: "Key") -> str | None:
        """
        >>> Key("m", "d", "fp32", 10, 0).difference(Key("m", "e", "fp32", 10, 0))
        'data: found e, expected d'
        """
        mine, theirs = asdict(self), asdict(other)
        changed = [name for name in mine if mine[name] != theirs[name]]
        return f"{changed[0]}: found {theirs[changed[0]]}, expected {mine[changed[0]]}" if changed else None


@dataclass
class ReferenceLogps:
    """Tables [samples, 2] of chosen and rejected log-probabilities; zeros where training never looks."""

    train: Tensor
    valid: Tensor

    def save(self, path: Path, key: Key) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_name(f"{path.name}.building")
        tensors = {"train": self.train.cpu(), "valid": self.valid.cpu()}
        save_file(tensors, building, metadata={"key": json.dumps(asdict(key))})
        building.rename(path)

    @classmethod
    def load(cls, path: Path, key: Key) -> "ReferenceLogps":
        """Raises `StageError` if the file was made for something else."""
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            found = Key(**json.loads(file.metadata()["key"]))
            if (difference := key.difference(found)) is not None:
                raise StageError(f"{path}: made for another reference ({difference}); remove it to compute it anew")
            return cls(file.get_tensor("train"), file.get_tensor("valid"))


@torch.no_grad()
def compute_table(logps: AnswerLogps, rows: Rows, micro_batch_size: int, rank: int = 0, world_size: int = 1) -> Tensor:
    """Log-probabilities of every row's answers, [samples, 2]; zeros for what other ranks compute."""
    table = torch.zeros(len(rows), 2)
    own = range(rank, len(rows), world_size)
    for start in range(0, len(own), micro_batch_size):
        batch = from_pairs([rows[number] for number in own[start : start + micro_batch_size]])
        table[torch.tensor(batch.sample_ids, dtype=torch.long)] = logps(batch).float().cpu()
    return table


@torch.no_grad()
def compute_reference(
    logps: AnswerLogps,
    steps: StepDataset,
    held_out: ValidationRows,
    over_ranks: SumOverRanks,
    first_steps: int | None = None,
) -> ReferenceLogps:
    """One pass over all rows that training will meet (or its first steps), and over the held-out ones."""
    train, new = torch.zeros(len(steps.rows), 2), np.ones(len(steps.rows), np.bool_)
    for number in range(len(steps) if first_steps is None else min(first_steps, len(steps))):
        numbers = steps.row_numbers(number)
        rows, places = np.unique(numbers, return_index=True)
        if not new[rows].any():
            continue
        mine = new[rows] & (places % steps.world_size == steps.rank)
        first = set(rows[mine].tolist())
        own = iter(numbers[steps.rank :: steps.world_size].tolist())
        for micro_batch in steps[number].micro_batches:
            values_P2 = logps(micro_batch).float().cpu()
            for sample, row, value_2 in zip(micro_batch.sample_ids, own, values_P2, strict=False):
                if row in first:
                    train[sample] = value_2
                    first.discard(row)
        new[numbers] = False
    valid = torch.zeros(len(held_out.rows), 2)
    for micro_batch in held_out:
        valid[torch.tensor(micro_batch.sample_ids, dtype=torch.long)] = logps(micro_batch).float().cpu()
    return ReferenceLogps(over_ranks(train), over_ranks(valid))


def content_hash(folder: Path, patterns: tuple[str, ...]) -> str:
    """sha256 over names and content of the files of a folder that match; first 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
