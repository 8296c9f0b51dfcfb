"""How weights move: optimizer, schedule, and the three kinds of training."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from solar.config.base import StageConfig, reference
from solar.config.duration import Duration, Unit
from solar.errors import ConfigError


class OptimizerName(StrEnum):
    """Optimizers by name."""

    adamw = "adamw"
    adafactor = "adafactor"
    muon = "muon"


@dataclass
class OptimizerConfig:
    """One update rule; parameters that are norms, biases or embeddings are never decayed."""

    name: OptimizerName = MISSING
    lr: float = MISSING
    """Peak learning rate."""
    betas: list[float] = MISSING
    eps: float = MISSING
    weight_decay: float = MISSING
    max_grad_norm: float = MISSING
    """Gradients are scaled down to this norm; 0 means never."""

    def problems(self) -> Iterator[str]:
        if not self.lr > 0:
            yield f"lr: found {self.lr}, expected more than 0"
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas: found {self.betas}, expected two numbers from 0 to below 1"
        if not self.eps > 0:
            yield f"eps: found {self.eps}, expected more than 0"
        if not self.weight_decay >= 0:
            yield f"weight_decay: found {self.weight_decay}, expected 0 or more"
        if not self.max_grad_norm >= 0:
            yield f"max_grad_norm: found {self.max_grad_norm}, expected 0 (never clip) or more"


class ScheduleName(StrEnum):
    """Shapes of the learning rate after warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    wsd = "wsd"
    """Warm-up, stable, decay: constant until the last `decay_fraction`, then 1 - sqrt."""


@dataclass
class ScheduleConfig:
    """The learning rate as a closed form of the share of training done."""

    name: ScheduleName = MISSING
    warmup_fraction: float = MISSING
    """Share of training in which the rate rises linearly from 0."""
    final_fraction: float = MISSING
    """The last rate, as a share of the peak."""
    decay_fraction: float = 0.0
    """Share of training that `wsd` decays in; 0: never, for a run that others branch off."""
    warmup: str | None = None
    """Warm-up as `200 steps` or `50M tokens` instead of a share: a longer training then has the same past."""
    decay: str | None = None
    """The same for the decay of `wsd`."""

    def problems(self) -> Iterator[str]:
        for name in ("warmup_fraction", "final_fraction", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name}: found {getattr(self, name)}, expected 0 to 1"
        if self.warmup_fraction + self.decay_fraction > 1:
            total = self.warmup_fraction + self.decay_fraction
            yield f"warmup_fraction + decay_fraction: found {total:g}, expected at most 1"
        for name in ("warmup", "decay"):
            if (text := getattr(self, name)) is None:
                continue
            try:
                if Duration.parse(text).unit is Unit.epochs:
                    yield f"{name}: found '{text}', expected steps or tokens"
            except ConfigError as error:
                yield f"{name}: {error}"


class Precision(StrEnum):
    """Number formats of weights and arithmetic."""

    fp32 = "fp32"
    bf16_true = "bf16_true"
    """Weights and arithmetic in bfloat16."""
    bf16_mixed = "bf16_mixed"
    """Weights in float32, arithmetic in bfloat16."""


class Trainable(StrEnum):
    """Which weights move; `new` are the layers a growth plan added."""

    all = "all"
    new = "new"


@dataclass
class GuardConfig:
    """When a step's gradient is thrown away instead of used. A loss or gradient that is not finite always is."""

    spike_sigmas: float = 0.0
    """Skip a step whose loss or gradient norm is this many standard deviations above the last ones; 0: never."""
    window: int = 128
    """Steps that mean and deviation are taken over; nothing is skipped as a spike before there are that many."""
    patience: int = 10
    """Stop as diverged after so many skipped steps in a row."""

    def problems(self) -> Iterator[str]:
        if self.spike_sigmas < 0:
            yield f"spike_sigmas: found {self.spike_sigmas}, expected 0 (never) or more"
        for name in ("window", "patience"):
            if getattr(self, name) < 2:
                yield f"{name}: found {getattr(self, name)}, expected at least 2"


class AverageKind(StrEnum):
    """Which mean of the weights along training is kept."""

    none = "none"
    """The last weights."""
    ema = "ema"
    """Exponential moving average."""
    window = "window"
    """Plain mean over the last part of training."""


@dataclass
class AverageConfig:
    """What becomes of the weights in the end: an average instead of the last ones."""

    kind: AverageKind = AverageKind.none
    decay: float = 0.999
    """Of `ema`: what a step leaves of the average."""
    window_fraction: float = 0.2
    """Of `window`: the last share of training that is averaged."""
    every_steps: int = 1
    """Of `window`: steps between the weights that are averaged; the last ones always are."""

    def problems(self) -> Iterator[str]:
        if not 0 <= self.decay < 1:
            yield f"decay: found {self.decay}, expected 0 to below 1"
        if not 0 < self.window_fraction <= 1:
            yield f"window_fraction: found {self.window_fraction}, expected more than 0, at most 1"
        if self.every_steps < 1:
            yield f"every_steps: found {self.every_steps}, expected at least 1"


@dataclass
class AdapterConfig:
    """Low-rank adapters (LoRA): a few weights are trained, and folded into the frozen ones in the end."""

    rank: int = 0
    """Rank of the adapters; 0: none, the weights themselves are trained."""
    alpha: float = 16.0
    """The adapters' product is scaled by alpha / rank."""
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)
    """Last names of the linear layers that get one (q_proj, v_proj, ...); all but the output layer, if empty."""

    def problems(self) -> Iterator[str]:
        if self.rank < 0:
            yield f"rank: found {self.rank}, expected 0 (none) or more"
        if not self.alpha > 0:
            yield f"alpha: found {self.alpha}, expected more than 0"
        if not 0 <= self.dropout < 1:
            yield f"dropout: found {self.dropout}, expected 0 to below 1"


@dataclass
class TrainConfig(StageConfig):
    """What continued pretraining, instruction tuning and preference optimization share."""

    model: str = reference("model")
    data: str = reference("tokens")
    duration: str = MISSING
    """A number and a unit: `2M tokens`, `400 steps`, `3 epochs`."""
    global_batch_size: int = MISSING
    """Rows (packed sequences, conversations or pairs) an optimizer step, over all devices and micro-batches."""
    precision: Precision = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    trainable: Trainable = Trainable.all
    lr_factors: dict[str, float] = field(default_factory=dict)
    """Role of a parameter in the growth plan (old, new, seam, embed, norm) -> factor on its learning rate."""
    validate_every_steps: int | None = None
    """Read held-out text this often; only before the first and after the last step, if not given."""
    max_valid_rows: int | None = None
    """Read only the first rows of the `valid` split; all, if not given."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    seed: int = MISSING
    """Order of the data and all randomness of training."""

    def problems(self) -> Iterator[str]:
        try:
            Duration.parse(self.duration)
        except ConfigError as error:
            yield f"duration: {error}"
        if self.global_batch_size < 1:
            yield f"global_batch_size: found {self.global_batch_size}, expected at least 1"
        for name in ("validate_every_steps", "max_valid_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: found {value}, expected at least 1 or null"
        roles = ("old", "new", "seam", "embed", "norm")
        for role, factor in self.lr_factors.items():
            if role not in roles:
                yield f"lr_factors.{role}: unknown role, expected one of {', '.join(roles)}"
            elif not factor >= 0:
                yield f"lr_factors.{role}: found {factor}, expected 0 (frozen) or more"
        for part in ("optimizer", "schedule", "guard", "average", "adapter"):
            for problem in getattr(self, part).problems():
                yield f"{part}.{problem}"


@dataclass
class PretrainConfig(TrainConfig):
    """Continued pretraining (or pretraining, from an `init_model`): next-token loss on every token."""


@dataclass
class SftConfig(TrainConfig):
    """Instruction tuning: next-token loss on the assistant's tokens."""


class PreferenceLoss(StrEnum):
    """Losses on preference pairs, by the name their papers gave them."""

    sigmoid = "sigmoid"
    """DPO, arXiv 2305.18290, equation 7."""
    ipo = "ipo"
    """IPO, arXiv 2310.12036, equation 17; `beta` is its tau."""
    dpo_positive = "dpo_positive"
    """DPO-Positive, arXiv 2402.13228, equation 3: a chosen answer below the reference costs `alpha` times as much."""
    rpo = "rpo"
    """DPO plus `alpha` times the chosen answer's loss per token, arXiv 2404.19733, equation 1."""
    simpo = "simpo"
    """SimPO, arXiv 2405.14734, equation 6: per token, no reference, a margin of `gamma`."""
    orpo = "orpo"
    """ORPO, arXiv 2403.07691, equation 6: the chosen answer's loss plus `beta` times the odds ratio's; no reference."""
    kto = "kto"
    """KTO, arXiv 2402.01306, equation 8, both answers of a pair; its reference point is that of the step before."""
    apo_zero = "apo_zero"
    """APO-zero, arXiv 2408.06266, equation 6: chosen above the reference, rejected below."""


@dataclass
class DpoConfig(TrainConfig):
    """Direct preference optimization against a frozen reference."""

    reference: str = reference("model")
    """The model whose log-probabilities the policy is held to; `${.model}`: where the policy started."""
    loss: PreferenceLoss = MISSING
    beta: float = MISSING
    """Strength of the pull to the reference."""
    label_smoothing: float = 0.0
    """Share of pairs assumed to be labelled the wrong way round (cDPO); `sigmoid` and `rpo`."""
    length_normalized: bool = False
    """Log-probabilities per token instead of per answer (`simpo` and `orpo` always)."""
    sources: list[str] = field(default_factory=list)
    """Train on the pairs of these sources of the data alone; all, if empty. Steps of stepwise DPO differ in it."""
    part: str | None = None
    """Train on one of equal parts, as `1/2`; which pairs it holds depends on the data alone. The same use."""
    alpha: float = 0.0
    """Weight of what `rpo` and `dpo_positive` add to DPO."""
    gamma: float = 0.0
    """Margin of `simpo`."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self.beta > 0:
            yield f"beta: found {self.beta}, expected more than 0"
        if not 0 <= self.label_smoothing < 0.5:
            yield f"label_smoothing: found {self.label_smoothing}, expected 0 to below 0.5"
        if self.loss in (PreferenceLoss.rpo, PreferenceLoss.dpo_positive) and not self.alpha > 0:
            yield f"alpha: found {self.alpha}, expected more than 0 for {self.loss.value}"
        if self.gamma < 0:
            yield f"gamma: found {self.gamma}, expected 0 or more"
        if self.part is not None and not is_part(self.part):
            yield f"part: found '{self.part}', expected a part of a whole such as '1/2'"
        if self.duration.rstrip().endswith(("token", "tokens")):
            yield f"duration: found '{self.duration}', expected steps or epochs for preference pairs"


def is_part(text: str) -> bool:
    """
    >>> is_part("1/2"), is_part("3/2"), is_part("half")
    (True, False, False)
    """
    number, slash, whole = text.partition("/")
    return slash == "/" and number.isdigit() and whole.isdigit() and 1 <= int(number) <= int(whole)
