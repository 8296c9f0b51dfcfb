"""Skip harmful steps: their data is read, their gradient is dropped, and they are counted."""

import math
from collections import deque
from typing import Any

from solar.config.training import GuardConfig
from solar.errors import StageError


class Guard:
    """Watches loss and gradient norm. Its window holds finite values only and is part of the checkpoint.

    A skipped step counts as a step: its data is not read again, and the schedule moves on. Weights and optimizer state
    stay unchanged. After OLMo-core's SkipStepOptimizer, which lets NaN into its window.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.losses: deque[float] = deque(maxlen=config.window)
        self.norms: deque[float] = deque(maxlen=config.window)
        self.skipped = 0
        self.in_a_row = 0
        self.rollbacks = 0
        self.refused = (math.nan, math.nan)
        """Loss and gradient norm of the last skipped step."""

    def accepts(self, loss: float, grad_norm: float, step: int) -> bool:
        """Whether to apply the step. Raises `StageError` after too many skipped steps in a row."""
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        accepted = finite and not (self._spikes(loss, self.losses) or self._spikes(grad_norm, self.norms))
        if finite:
            self.losses.append(loss)
            self.norms.append(grad_norm)
        self.in_a_row = 0 if accepted else self.in_a_row + 1
        if not accepted:
            self.skipped += 1
            self.refused = loss, grad_norm
        if self.in_a_row >= self.config.patience:
            raise StageError(
                f"training diverged: {self.in_a_row} steps up to step {step} had a loss or gradient that is not finite "
                f"or far above the ones before (last: loss {loss:.4g}, norm {grad_norm:.4g}); lower optimizer.lr"
            )
        return accepted

    def rollback_point(self, step: int) -> int | None:
        """After step `step`: the step to roll back to, not after the last accepted step; None: go on."""
        every = self.config.rollback_every_steps
        if every is None or self.in_a_row != self.config.rollback_after:
            return None
        return (step - self.in_a_row) // every * every

    def _spikes(self, value: float, window: deque[float]) -> bool:
        if not self.config.spike_sigmas or len(window) < self.config.window:
            return False
        mean = sum(window) / len(window)
        deviation = math.sqrt(sum((seen - mean) ** 2 for seen in window) / (len(window) - 1))
        return value > mean + self.config.spike_sigmas * deviation

    def state(self) -> dict[str, Any]:
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "rollbacks": self.rollbacks,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.losses.extend(state["losses"])
        self.norms.extend(state["norms"])
        self.skipped, self.in_a_row, self.rollbacks = state["skipped"], state["in_a_row"], state["rollbacks"]
