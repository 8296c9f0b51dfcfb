"""How weights move: what continued pretraining, instruction tuning and preference optimization share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from solar.config.base import StageConfig, reference
from solar.config.duration import Duration, Unit
from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from solar.errors import ConfigError


class Precision(StrEnum):
    """Number formats of weights and arithmetic."""

    fp32 = "fp32"
    """Weights and arithmetic in float32."""
    bf16_true = "bf16_true"
    """Weights and arithmetic in bfloat16."""
    bf16_mixed = "bf16_mixed"
    """Weights in float32, arithmetic in bfloat16."""


class Trainable(StrEnum):
    """Which weights move; `new` are the layers a growth plan added."""

    all = "all"
    """All weights."""
    new = "new"
    """The new layers; all other weights are frozen."""


@dataclass
class GuardConfig:
    """When a step's gradient is thrown away. A step whose loss or gradient is not finite is always skipped."""

    spike_sigmas: float = 0.0
    """Skip a step whose loss or gradient norm is this many standard deviations above recent steps; 0: never."""
    window: int = 128
    """Recent steps over which mean and deviation are taken; before there are that many, no step counts as a spike."""
    patience: int = 10
    """Stop as diverged after this many skipped steps in a row."""
    rollback_after: int | None = None
    """After this many skipped steps in a row, take weights and optimizer from the newest point before them; null:
    never. The rows since that point are not read again, and the schedule goes on."""
    rollback_every_steps: int | None = None
    """Steps between these points; each point is a checkpoint."""

    def problems(self) -> Iterator[str]:
        if self.spike_sigmas < 0:
            yield f"spike_sigmas: found {self.spike_sigmas}, expected 0 (never) or more"
        for name in ("window", "patience"):
            if getattr(self, name) < 2:
                yield f"{name}: found {getattr(self, name)}, expected at least 2"
        if (self.rollback_after is None) != (self.rollback_every_steps is None):
            yield "rollback_after, rollback_every_steps: found one of them, expected both or none"
        elif self.rollback_after is not None and not 1 <= self.rollback_after < self.patience:
            yield f"rollback_after: found {self.rollback_after}, expected 1 to below the patience of {self.patience}"
        if self.rollback_every_steps is not None and self.rollback_every_steps < 1:
            yield f"rollback_every_steps: found {self.rollback_every_steps}, expected at least 1"


class AverageKind(StrEnum):
    """Which mean of the weights along training becomes the model."""

    none = "none"
    """The last weights."""
    ema = "ema"
    """Exponential moving average."""
    window = "window"
    """Plain mean over the last part of training."""


@dataclass
class AverageConfig:
    """Which weights are kept in the end: an average instead of the last weights."""

    kind: AverageKind = AverageKind.none
    """The kind of mean."""
    decay: float = 0.999
    """For `ema`: the factor by which each step lowers the share of earlier steps in the average."""
    window_fraction: float = 0.2
    """For `window`: the last share of training that is averaged."""
    every_steps: int = 1
    """For `window`: steps between the weights that are averaged; the last weights always count."""

    def problems(self) -> Iterator[str]:
        if not 0 <= self.decay < 1:
            yield f"decay: found {self.decay}, expected 0 to below 1"
        if not 0 < self.window_fraction <= 1:
            yield f"window_fraction: found {self.window_fraction}, expected more than 0, at most 1"
        if self.every_steps < 1:
            yield f"every_steps: found {self.every_steps}, expected at least 1"
        for name, reader in _READ_BY.items():
            if self.kind is not reader and getattr(self, name) != getattr(AverageConfig, name):
                yield f"{name}: kind {self.kind} does not read it; remove it, or take {reader}"


_READ_BY = {"decay": AverageKind.ema, "window_fraction": AverageKind.window, "every_steps": AverageKind.window}
"""Setting of an average -> the kind that reads the setting."""


class FrozenBase(StrEnum):
    """How the weights beside adapters are held while these are trained. Needs `bitsandbytes`."""

    nf4 = "nf4"
    """About 4 bits a weight (QLoRA, arXiv 2305.14314)."""
    int8 = "int8"
    """8 bits a weight."""


@dataclass
class AdapterConfig:
    """Low-rank adapters (LoRA): a few weights are trained, and folded into the frozen weights in the end."""

    rank: int = 0
    """Rank of the adapters; 0: no adapters, the weights themselves are trained."""
    alpha: float = 16.0
    """The adapters' product is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs that training sets to zero."""
    targets: list[str] = field(default_factory=list)
    """Last names of linear layers that get an adapter (q_proj, v_proj, ...); all except the output layer, if empty."""
    keep: bool | None = None
    """Write the adapter alone to `adapter/`, too, beside the model that it is folded into."""
    base: FrozenBase | None = None
    """Hold the frozen linear layers in few bits (QLoRA); null: as floats. The saved model has the rounded weights as
    floats again, since the adapter was trained beside these; a reference of DPO is rounded in the same way."""

    def problems(self) -> Iterator[str]:
        if self.rank < 0:
            yield f"rank: found {self.rank}, expected 0 (none) or more"
        if not self.alpha > 0:
            yield f"alpha: found {self.alpha}, expected more than 0"
        if not 0 <= self.dropout < 1:
            yield f"dropout: found {self.dropout}, expected 0 to below 1"
        for name in ("targets", "dropout", "keep", "base"):
            if not self.rank and getattr(self, name):
                yield f"{name}: given, but there is no adapter; remove it, or set rank"


SELECTIVE = "selective"
"""Value of `activation_checkpointing` between none and full."""


@dataclass
class TrainConfig(StageConfig):
    """What continued pretraining, instruction tuning and preference optimization share."""

    model: str = reference("model")
    """The model that training starts from."""
    data: str = reference("tokens")
    """The tokens: the `train` split is trained on, the `valid` split is the held-out text."""
    duration: str = MISSING
    """A number and a unit: `2M tokens`, `400 steps`, `3 epochs`."""
    global_batch_size: int = MISSING
    """Rows (packed sequences, conversations or pairs) of an optimizer step, over all devices and micro-batches."""
    precision: Precision = MISSING
    """Number formats of weights and arithmetic."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    trainable: Trainable = Trainable.all
    """Which weights move."""
    unfreeze_at: str | None = None
    """With `trainable: new`, when the other weights begin to move: `200 steps` or `1M tokens`; null: never."""
    lr_factors: dict[str, float] = field(default_factory=dict)
    """Role of a parameter in the growth plan -> factor on its learning rate; 0 freezes. Layers are old, new or seam;
    outside them are embed and norm (the last one)."""
    validate_every_steps: int | None = None
    """Steps between validations; null: only before the first and after the last step."""
    max_valid_rows: int | None = None
    """Read only this many rows of the `valid` split, from the first on; null: read all."""
    activation_checkpointing: bool | str = False
    """What the backward pass computes again to save memory: `none`; `selective`: all but matrix products and attention,
    for little more work; `full`: whole layers, for a third more work. `false` and `true` mean `none` and `full`."""
    seed: int = MISSING
    """Seed of the order of the data and of all randomness in training."""
    keep_optimizer: bool | None = None
    """Keep the optimizer's state and the place in the data, for stages that continue this training."""
    branch: bool | None = None
    """Continue the training that left `model`, with its state, on a schedule and for a duration of its own."""

    def __post_init__(self) -> None:
        """One value for each meaning: `full` and `true` must give the same identity."""
        choice = self.activation_checkpointing
        self.activation_checkpointing = {"none": False, "full": True}.get(str(choice), choice)

    def problems(self) -> Iterator[str]:
        if self.activation_checkpointing not in (False, True, SELECTIVE):
            found = self.activation_checkpointing
            yield f"activation_checkpointing: found {found}, expected none, selective or full"
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
        yield from self._unfreezing()
        yield from self._base_in_few_bits()
        for part in ("optimizer", "schedule", "guard", "average", "adapter"):
            for problem in getattr(self, part).problems():
                yield f"{part}.{problem}"
        if self.optimizer.split_weights and (self.precision is not Precision.bf16_true or self.adapter.rank):
            found = "an adapter" if self.adapter.rank else f"precision {self.precision}"
            yield f"optimizer.split_weights: found true with {found}, expected bf16_true and no adapter"
        if self.optimizer.name is OptimizerName.schedule_free:
            if self.schedule.name is not ScheduleName.constant:
                yield f"schedule.name: found {self.schedule.name} with optimizer schedule_free, expected constant"
            if self.average.kind is not AverageKind.none:
                yield f"average.kind: found {self.average.kind} with optimizer schedule_free, which averages by itself"

    def _base_in_few_bits(self) -> Iterator[str]:
        """Adapters of a part of the layers, and a state that outlives the base it was trained beside."""
        if self.adapter.base is None or not self.adapter.rank:
            return
        if self.trainable is not Trainable.all:
            yield f"adapter.base: found {self.adapter.base} with trainable {self.trainable}, expected trainable all"
        for name in ("keep_optimizer", "branch"):
            if getattr(self, name):
                yield f"adapter.base: found {self.adapter.base} with {name}, which needs floats; expected null"

    def _unfreezing(self) -> Iterator[str]:
        if self.unfreeze_at is None:
            return
        if self.trainable is not Trainable.new or self.adapter.rank:
            yield f"unfreeze_at: found '{self.unfreeze_at}', expected trainable new and no adapter with it"
        try:
            if Duration.parse(self.unfreeze_at).unit is Unit.epochs:
                yield f"unfreeze_at: found '{self.unfreeze_at}', expected steps or tokens"
        except ConfigError as error:
            yield f"unfreeze_at: {error}"


class Control(StrEnum):
    """How long the ungrown base is trained, for comparison with the grown model."""

    same_tokens = "same_tokens"
    """For as many tokens as the grown model."""
    same_flops = "same_flops"
    """For as many floating-point operations, which is more tokens: the base is smaller."""


CONTROL_SUFFIX = "_control"
"""Suffix of a control's name, after the name of its stage."""


@dataclass
class NextTokenConfig(TrainConfig):
    """What continued pretraining and instruction tuning share."""

    control: Control | None = None
    """Train the base of the growth in the same way, as the stage `<name>_control`."""
    z_loss: float | None = None
    """Weight of the squared log of the softmax' denominator, which keeps logits from drifting (PaLM: 1e-4; OLMo 2:
    1e-5). It is part of the logged `loss`, is logged as `z_loss` too, and held-out text is read without it."""
    float8: bool | None = None
    """Multiply the matrices of the layers in float8 (torchao), on GPUs of compute capability 8.9 and later, beside
    bf16_true or bf16_mixed. Weights, output layer and the trained model keep their number formats."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.z_loss is not None and not self.z_loss > 0:
            yield f"z_loss: found {self.z_loss}, expected more than 0, or null for none"
        if self.float8 and (self.precision is Precision.fp32 or self.adapter.rank):
            found = "an adapter" if self.adapter.rank else f"precision {self.precision}"
            yield f"float8: found true with {found}, expected bf16_true or bf16_mixed, and no adapter"


@dataclass
class PretrainConfig(NextTokenConfig):
    """Continued pretraining (or pretraining, from an `init_model`): next-token loss on every token."""


@dataclass
class SftConfig(NextTokenConfig):
    """Instruction tuning: next-token loss on the assistant's tokens."""
