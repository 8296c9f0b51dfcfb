"""The learning rate as a closed form of the step: nothing to save, nothing to restore."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from solar.config.duration import Duration, Unit
from solar.config.merging import Decay
from solar.config.optimizer import ScheduleConfig, ScheduleName


@dataclass(frozen=True)
class Schedule:
    """A shape with its lengths in optimizer steps."""

    name: ScheduleName
    total_steps: int
    warmup_steps: int
    decay_steps: int
    final: float
    """The last rate, as a share of the peak, like `initial` and `stable`."""
    initial: float = 0.0
    stable: float = 1.0
    cooldown_steps: int = 0
    decay_shape: Decay = Decay.sqrt

    @classmethod
    def of(cls, config: ScheduleConfig, total_steps: int, steps_of_tokens: Callable[[int], int]) -> "Schedule":
        """`steps_of_tokens`: number of tokens -> number of steps that read them.

        A warm-up that is longer than the training keeps its length, so that a longer training starts alike.
        """

        def steps(text: str | None, fraction: float) -> int:
            if text is None:
                return round(fraction * total_steps)
            duration = Duration.parse(text)
            amount = round(duration.amount)
            return steps_of_tokens(amount) if duration.unit is Unit.tokens else amount

        def within(name: str, length: str | None, fraction: float, left: int) -> int:
            wanted = steps(length, fraction)
            if length is not None and wanted > left:
                warnings.warn(f"schedule.{name}: found {wanted} steps, but {left} are left for it", stacklevel=2)
            return min(wanted, left)

        if (config.decay or config.decay_fraction) and config.name not in (ScheduleName.wsd, ScheduleName.infinite):
            warnings.warn(
                f"schedule.decay, decay_fraction: {config.name} has no such decay, so the setting is ignored",
                stacklevel=2,
            )
        warmup = steps(config.warmup, config.warmup_fraction)
        left = max(0, total_steps - warmup)
        if warmup > total_steps:
            problem = f"found {warmup} steps in a training of {total_steps}, which ends before the peak"
            warnings.warn(f"schedule.warmup: {problem}", stacklevel=2)
        decay = within("decay", config.decay, config.decay_fraction, left)
        return cls(
            config.name,
            total_steps,
            warmup,
            decay,
            config.final_fraction,
            config.initial_fraction or 0.0,
            1.0 if config.stable_fraction is None else config.stable_fraction,
            within("cooldown", config.cooldown, 0.0, left - decay),
            config.decay_shape or Decay.sqrt,
        )

    def factor(self, step: int) -> float:
        """Share of the peak learning rate that optimizer step `step` (from 0) uses.

        >>> linear = Schedule(ScheduleName.linear, total_steps=10, warmup_steps=2, decay_steps=0, final=0.0)
        >>> [round(linear.factor(step), 3) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.125]
        """
        if step < self.warmup_steps:
            return self.initial + (1 - self.initial) * (step + 1) / self.warmup_steps
        since_warmup = step - self.warmup_steps
        done = since_warmup / max(1, self.total_steps - self.warmup_steps)
        if self.name is ScheduleName.constant:
            return 1.0
        if self.name is ScheduleName.linear:
            return _between(1.0, self.final, done)
        if self.name is ScheduleName.cosine:
            return _between(1.0, self.final, _DROP[Decay.cosine](done))
        decayed = step - (self.total_steps - self.decay_steps)
        if decayed >= 0:
            return _between(self.stable, self.final, _DROP[self.decay_shape](decayed / self.decay_steps))
        if since_warmup < self.cooldown_steps:
            return _between(1.0, self.stable, _DROP[Decay.cosine](since_warmup / self.cooldown_steps))
        return self.stable


_DROP: dict[Decay, Callable[[float], float]] = {
    Decay.linear: lambda done: done,
    Decay.sqrt: math.sqrt,
    Decay.cosine: lambda done: (1 - math.cos(math.pi * done)) / 2,
}
"""Share of the decay that is done -> share of the drop in the rate."""


def _between(start: float, end: float, share: float) -> float:
    return start - (start - end) * share
