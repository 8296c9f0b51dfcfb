"""Going on from another stage's training: with its optimizer, and where it stopped in the data."""

import json
from dataclasses import dataclass
from pathlib import Path

from solar.errors import StageError
from solar.network.microbatch import Ints
from solar.training.batches.steps import RowOrder
from solar.training.checkpoint.points import STATE, damage

KEPT = "training_state"
"""Beside `model/`: a checkpoint of the end of training, before weights were averaged or rounded for saving."""


@dataclass(frozen=True)
class Trunk:
    """A training that others go on from."""

    checkpoint: Path
    steps: int
    rows: int
    tokens: int

    @classmethod
    def of(cls, model_dir: Path) -> "Trunk":
        """What the stage that left this model kept; `StageError` if it kept nothing, or if that is damaged."""
        checkpoint = model_dir.parent / KEPT
        if (problem := damage(checkpoint)) is not None:
            raise StageError(f"branch: {checkpoint}: {problem}; expected a stage that was run with keep_optimizer")
        done = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["solar"]
        return cls(checkpoint, done["steps_done"], done["rows_done"], done["tokens_done"])

    def rest(self, order: RowOrder) -> RowOrder:
        """The order from where the trunk stopped."""
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
