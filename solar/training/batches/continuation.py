"""Continue another stage's training: with its optimizer, and from its position in the data."""

import json
from dataclasses import dataclass
from pathlib import Path

from solar.errors import StageError
from solar.network.microbatch import Ints
from solar.training.batches.steps import RowOrder
from solar.training.checkpoint.folder import STATE, damage

KEPT = "training_state"
"""Beside `model/`: a checkpoint of the end of training, before weights are averaged or rounded."""


@dataclass(frozen=True)
class Trunk:
    """A training that other stages branch off."""

    checkpoint: Path
    steps: int
    rows: int
    tokens: int

    @classmethod
    def of(cls, model_dir: Path) -> "Trunk":
        """The training that made this model. Raises `StageError` if its state was not kept, or is damaged."""
        checkpoint = model_dir.parent / KEPT
        if (problem := damage(checkpoint)) is not None:
            raise StageError(f"branch: {checkpoint}: {problem}; expected a stage that was run with keep_optimizer")
        done = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["solar"]
        return cls(checkpoint, done["steps_done"], done["rows_done"], done["tokens_done"])

    def rest(self, order: RowOrder) -> RowOrder:
        """The order from the position at which the trunk stopped."""
        return _Rest(order, self.rows, self.tokens)


class _Rest:
    """An order without its first rows."""

    def __init__(self, order: RowOrder, rows: int, tokens: int) -> None:
        self.order, self.skipped_rows, self.skipped_tokens = order, rows, tokens
        self.rows_per_epoch = order.rows_per_epoch
        self.total_rows = None if order.total_rows is None else max(0, order.total_rows - rows)
        self.total_tokens = None if order.total_tokens is None else max(0, order.total_tokens - tokens)
        self.tokens_per_epoch = order.tokens_per_epoch

    def rows(self, start: int, count: int) -> Ints:
        return self.order.rows(self.skipped_rows + start, count)

    def position_at_tokens(self, tokens: int) -> int:
        return max(0, self.order.position_at_tokens(self.skipped_tokens + tokens) - self.skipped_rows)
