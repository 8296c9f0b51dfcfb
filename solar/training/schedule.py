"""The learning rate as a closed form of the step: nothing to save, nothing to restore."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from solar.config.duration import Duration, Unit
from solar.config.optimizer import ScheduleConfig, ScheduleName


@dataclass(frozen=True)
class Schedule:
    """A shape with its lengths in optimizer steps."""

    name: ScheduleName
    total_steps: int
    warmup_steps: int
    decay_steps: int
    final: float
    """The last rate, as a share of the peak."""

    @classmethod
    def of(cls, config: ScheduleConfig, total_steps: int, steps_of_tokens: Callable[[int], int]) -> "Schedule":
        """`steps_of_tokens`: how many steps read so many tokens."""

        def steps(text: str | None, fraction: float) -> int:
            if text is None:
                return round(fraction * total_steps)
            duration = Duration.parse(text)
            amount = round(duration.amount)
            return min(total_steps, steps_of_tokens(amount) if duration.unit is Unit.tokens else amount)

        warmup, decay = steps(config.warmup, config.warmup_fraction), steps(config.decay, config.decay_fraction)
        return cls(config.name, total_steps, warmup, min(decay, total_steps - warmup), config.final_fraction)

    def factor(self, step: int) -> float:
        """Share of the peak learning rate that optimizer step `step` (from 0) uses.

        >>> linear = Schedule(ScheduleName.linear, total_steps=10, warmup_steps=2, decay_steps=0, final=0.0)
        >>> [round(linear.factor(step), 3) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.125]
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        if self.name is ScheduleName.linear:
            return 1 - (1 - self.final) * done
        if self.name is ScheduleName.cosine:
            return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
        if self.name is ScheduleName.wsd and self.decay_steps:
            decayed = (step - (self.total_steps - self.decay_steps)) / self.decay_steps
            return 1.0 if decayed < 0 else 1 - (1 - self.final) * math.sqrt(decayed)
        return 1.0
