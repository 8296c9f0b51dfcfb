"""The update rule, and the learning rate along training."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from solar.config.duration import Duration, Unit
from solar.config.merging import Decay
from solar.errors import ConfigError


class OptimizerName(StrEnum):
    """Optimizers by name."""

    adamw = "adamw"
    """torch's, fused."""
    adamw_8bit = "adamw_8bit"
    """bitsandbytes': both moments in 8 bits a number."""
    adafactor = "adafactor"
    """torch's: the second moment as rows and columns, and no first moment."""
    muon = "muon"
    """torch's for the matrices of the layers (not for experts that are stored as one block), AdamW for the rest."""
    schedule_free = "schedule_free"
    """schedulefree's AdamW: an average of the weights takes the place of a decaying rate."""


OPTIMIZER_PACKAGES = {
    OptimizerName.adamw_8bit: ("bitsandbytes", "eight_bit"),
    OptimizerName.schedule_free: ("schedulefree", "schedule_free"),
}
"""Optimizers that torch does not have -> package, and the extra that installs it."""


@dataclass
class OptimizerConfig:
    """The update rule. Norms, biases and embeddings are never decayed."""

    name: OptimizerName = MISSING
    """The update rule."""
    lr: float = MISSING
    """Peak learning rate."""
    betas: list[float] | None = None
    """Decay of the two moments (not for adafactor). The first is also the momentum of muon and the mixing weight of
    schedule_free."""
    eps: float | None = None
    """Added to the denominator of an update (not for adafactor)."""
    weight_decay: float = MISSING
    """Decoupled weight decay, relative to the learning rate; 0 for none."""
    max_grad_norm: float = MISSING
    """Gradients are scaled down to this norm; 0 means never."""
    split_weights: bool | None = None
    """With adamw in bf16_true: keep the 16 bits that bfloat16 cuts off each weight, 2 bytes more a weight. Updates then
    add up as in float32; else updates below 1/512 of a weight vanish."""

    def problems(self) -> Iterator[str]:
        if not self.lr > 0:
            yield f"lr: found {self.lr}, expected more than 0"
        if self.name is not OptimizerName.adafactor:
            if self.betas is None or len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
                yield f"betas: found {self.betas}, expected two numbers from 0 to below 1"
            elif self.name is OptimizerName.schedule_free and not self.betas[0] > 0:
                yield f"betas: found {self.betas}, expected a first one above 0 for schedule_free"
            if self.eps is None or not self.eps > 0:
                yield f"eps: found {self.eps}, expected more than 0"
        if not self.weight_decay >= 0:
            yield f"weight_decay: found {self.weight_decay}, expected 0 or more"
        if self.split_weights and self.name is not OptimizerName.adamw:
            yield f"split_weights: found true with {self.name}, expected adamw"
        if not self.max_grad_norm >= 0:
            yield f"max_grad_norm: found {self.max_grad_norm}, expected 0 (never clip) or more"


class ScheduleName(StrEnum):
    """Shapes of the learning rate after warm-up."""

    constant = "constant"
    """The peak, until the end."""
    linear = "linear"
    """A straight line down to `final_fraction`."""
    cosine = "cosine"
    """Half a cosine down to `final_fraction`."""
    wsd = "wsd"
    """Warm-up, stable, decay: constant until the last `decay_fraction` (arXiv 2405.18392)."""
    infinite = "infinite"
    """Warm-up, a half cosine down to `stable_fraction`, constant there, decay (arXiv 2403.08763, section 7)."""


@dataclass
class ScheduleConfig:
    """The learning rate as a function of the share of training done."""

    name: ScheduleName = MISSING
    """The shape after warm-up."""
    warmup_fraction: float = MISSING
    """Share of training in which the rate rises linearly from `initial_fraction`."""
    final_fraction: float = MISSING
    """The last rate, as a share of the peak."""
    decay_fraction: float = 0.0
    """Share of training in which `wsd` and `infinite` decay; 0: never, for a run that others continue."""
    warmup: str | None = None
    """Warm-up as `200 steps` or `50M tokens` instead of a share: a longer training then begins in the same way."""
    decay: str | None = None
    """Decay of `wsd` and `infinite` in steps or tokens instead of a share."""
    decay_shape: Decay | None = None
    """Curve of that decay; null: `sqrt`."""
    initial_fraction: float | None = None
    """The rate at which warm-up starts, as a share of the peak: to re-warm from the last rate of the base; null: 0."""
    cooldown: str | None = None
    """How long `infinite` takes from the peak to `stable_fraction`, as `200 steps` or `50M tokens`."""
    stable_fraction: float | None = None
    """The rate `infinite` stays at, as a share of the peak."""

    def problems(self) -> Iterator[str]:
        for name in ("warmup_fraction", "final_fraction", "decay_fraction", "initial_fraction", "stable_fraction"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                yield f"{name}: found {value}, expected 0 to 1"
        if self.warmup_fraction + self.decay_fraction > 1:
            total = self.warmup_fraction + self.decay_fraction
            yield f"warmup_fraction + decay_fraction: found {total:g}, expected at most 1"
        for name in ("warmup", "decay", "cooldown"):
            if (text := getattr(self, name)) is None:
                continue
            try:
                if Duration.parse(text).unit is Unit.epochs:
                    yield f"{name}: found '{text}', expected steps or tokens"
            except ConfigError as error:
                yield f"{name}: {error}"
        yield from self._without_effect()

    def _without_effect(self) -> Iterator[str]:
        """Settings that the shape does not read, and a setting that it requires."""
        infinite = self.name is ScheduleName.infinite
        if infinite and self.stable_fraction is None:
            yield "stable_fraction: not set, expected 0 to 1 for infinite"
        for name in ("cooldown", "stable_fraction"):
            if not infinite and getattr(self, name) is not None:
                yield f"{name}: {self.name.value} does not read it; remove it, or take infinite"
        if self.initial_fraction is not None and self.warmup is None and not self.warmup_fraction:
            yield "initial_fraction: there is no warm-up to start from it; remove it, or set warmup"
        if self.decay_shape is not None and self.name not in (ScheduleName.wsd, ScheduleName.infinite):
            yield f"decay_shape: {self.name.value} does not read it; remove it, or take wsd or infinite"
