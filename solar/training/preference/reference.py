"""Log-probabilities of the reference model: computed once, and kept beside the training that needs them.

A row's value is computed in the micro-batch in which training first meets the row, so that a policy that still equals
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
from safetensors.torch import save
from torch import Tensor

from solar.data.store.dataset import TokenDataset
from solar.errors import StageError
from solar.network.microbatch import MicroBatch, from_pairs
from solar.training.batches.steps import StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.weights.digest import file_sha256

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
    """Rows that training meets; None: all rows."""
    seed: int | None = None

    def difference(self, other: "Key") -> str | None:
        """The first field that differs.

        >>> Key("m", "d", "fp32", 10, 0).difference(Key("m", "e", "fp32", 10, 0))
        'data: found e, expected d'
        """
        mine, theirs = asdict(self), asdict(other)
        changed = [name for name in mine if mine[name] != theirs[name]]
        return f"{changed[0]}: found {theirs[changed[0]]}, expected {mine[changed[0]]}" if changed else None


@dataclass
class ReferenceLogps:
    """Tables [samples, 2] of chosen and rejected log-probabilities; zeros for samples that training never reads."""

    train: Tensor
    valid: Tensor

    def save(self, path: Path, key: Key) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_name(f"{path.name}.building")
        tensors = {"train": self.train.cpu(), "valid": self.valid.cpu()}
        # Not save_file of safetensors, whose files are unreadable for all but the owner.
        building.write_bytes(save(tensors, metadata={"key": json.dumps(asdict(key))}))
        building.rename(path)

    @classmethod
    def load(cls, path: Path, key: Key, made_in: Path | None = None) -> "ReferenceLogps":
        """Raises `StageError` if the file was made with another key.

        `made_in`: the artifact that the file belongs to, which is made again as a whole.
        """
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            stored = Key(**json.loads(file.metadata()["key"]))
            if (difference := key.difference(stored)) is not None:
                raise StageError(
                    f"{path}: made for another reference ({difference}); remove {made_in or path} to compute it anew"
                )
            return cls(file.get_tensor("train"), file.get_tensor("valid"))


@torch.no_grad()
def compute_table(
    logps: AnswerLogps, rows: TokenDataset, micro_batch_size: int, rank: int = 0, world_size: int = 1
) -> Tensor:
    """Log-probabilities of every row's answers, [samples, 2]; zeros for the rows of other ranks."""
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
    """One pass over the rows of all steps (or of the first steps), and over the held-out rows."""
    train, new = torch.zeros(len(steps.rows), 2), np.ones(len(steps.rows), np.bool_)
    for number in range(len(steps) if first_steps is None else min(first_steps, len(steps))):
        numbers = steps.row_numbers(number)
        rows, positions = np.unique(numbers, return_index=True)
        if not new[rows].any():
            continue
        mine = new[rows] & (positions % steps.world_size == steps.rank)
        unseen = set(rows[mine].tolist())
        own = iter(numbers[steps.rank :: steps.world_size].tolist())
        for micro_batch in steps[number].micro_batches:
            values_P2 = logps(micro_batch).float().cpu()
            for sample, row, value_2 in zip(micro_batch.sample_ids, own, values_P2, strict=False):
                if row in unseen:
                    train[sample] = value_2
                    unseen.discard(row)
        new[numbers] = False
    valid = torch.zeros(len(held_out.rows), 2)
    for micro_batch in held_out:
        valid[torch.tensor(micro_batch.sample_ids, dtype=torch.long)] = logps(micro_batch).float().cpu()
    return ReferenceLogps(over_ranks(train), over_ranks(valid))


def content_hash(folder: Path, patterns: tuple[str, ...]) -> str:
    """First 16 hex digits of the sha256 over names and contents of a folder's files that match a pattern."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(folder)} {file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]
