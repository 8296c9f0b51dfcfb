"""Preference optimization: the losses by name, and the configuration of its stages."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from solar.config.base import StageConfig, reference
from solar.config.duration import Duration
from solar.config.training import FrozenBase, Precision, TrainConfig
from solar.errors import ConfigError


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


REFERENCE_FREE = (PreferenceLoss.simpo, PreferenceLoss.orpo)

READ_BY = {
    "label_smoothing": (PreferenceLoss.sigmoid, PreferenceLoss.rpo),
    "alpha": (PreferenceLoss.rpo, PreferenceLoss.dpo_positive),
    "gamma": (PreferenceLoss.simpo,),
}
"""Number -> losses that read it; other losses refuse it, because it would change nothing."""

ALARMING_SHARE = 0.5
"""Share of pairs whose chosen answer became less likely than under the reference; more is likelihood displacement."""


class ChunkBy(StrEnum):
    """How preference pairs are dealt to the steps of stepwise DPO."""

    sources = "sources"
    """Every step names its sources."""
    size = "size"
    """At random, in parts of the given shares."""
    margin = "margin"
    """Pair by pair, easy to hard: the largest margin log p(chosen) - log p(rejected) under M_0 comes first."""
    margin_per_token = "margin_per_token"
    """As `margin`, but per token: with sums, pairs whose chosen answer is the shorter one look easy."""
    accuracy = "accuracy"
    """One source for each step, easy to hard: first the one of which M_0 ranks most pairs right (arXiv 2403.19270)."""


BY_MARGIN = (ChunkBy.margin, ChunkBy.margin_per_token)


@dataclass
class PreferenceConfig(TrainConfig):
    """What plain and stepwise DPO share."""

    loss: PreferenceLoss = MISSING
    """The loss on each pair."""
    beta: float = MISSING
    """Strength of the pull to the reference."""
    label_smoothing: float = 0.0
    """Share of pairs assumed to be labelled the wrong way round (cDPO); `sigmoid` and `rpo`."""
    length_normalized: bool = False
    """Log-probabilities per token instead of per answer (`simpo` and `orpo` always)."""
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
        yield from self._settings_without_effect()
        yield from _not_in_tokens("duration", self.duration)

    def _settings_without_effect(self) -> Iterator[str]:
        for name, losses in READ_BY.items():
            if getattr(self, name) > 0 and self.loss not in losses:
                read_by = " and ".join(loss.value for loss in losses)
                yield f"{name}: found {getattr(self, name)}, but {self.loss.value} does not read it ({read_by})"
        if self.length_normalized and self.loss is PreferenceLoss.kto:
            yield "length_normalized: found true, but kto's reference point is of whole answers; take false"


@dataclass
class DpoConfig(PreferenceConfig):
    """Direct preference optimization against a frozen reference."""

    logps: str | None = reference("logps", None)
    """The stage that computed the reference's log-probabilities. The plan adds this stage; all stages with the same
    reference and data share it."""
    sources: list[str] = field(default_factory=list)
    """Train only on the pairs of these sources of the data; empty: on all. The steps of stepwise DPO differ in this."""
    part: str | None = None
    """Train on one of several equal parts (`1/2`) or on a range of shares (`0.2:0.5`); the data decides which pairs."""
    chunks: str | None = reference("chunks", None)
    """The stage that ordered the pairs from easy to hard; `chunk` says which of its chunks is trained."""
    reference: str = reference("model")
    """The model whose log-probabilities the policy is held to; `${.model}`: the model from which the policy starts."""
    chunk: int | None = None
    """Number of the chunk that is trained, from 1."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.part is not None and not is_part(self.part):
            yield f"part: found '{self.part}', expected a part such as '1/2' or a span of shares such as '0.2:0.5'"
        if (self.chunks is None) != (self.chunk is None):
            yield "chunk: found one of chunks and chunk, expected both or none"


@dataclass
class StepConfig:
    """One step of stepwise DPO: its pairs, and what differs from the stage's own values."""

    sources: list[str] = field(default_factory=list)
    """With `chunk_by: sources`: the sources whose pairs are trained."""
    share: float | None = None
    """With `size` and the margins: the share of all pairs; null in all steps: equal shares."""
    beta: float | None = None
    """Instead of the stage's `beta`."""
    lr: float | None = None
    """Instead of the stage's `optimizer.lr`."""
    duration: str | None = None
    """Instead of the stage's `duration`."""


@dataclass
class StepwiseDpoConfig(PreferenceConfig):
    """Stepwise DPO, arXiv 2403.19270: one DPO a chunk, each with the model of the step before as start and reference.

    The plan makes the stages `<name>_1`, `<name>_2`, ... of it; `<name>` is the last of them.
    """

    chunk_by: ChunkBy = MISSING
    """How the pairs are dealt to the steps."""
    steps: list[StepConfig] = field(default_factory=list)
    """In the order they are trained."""
    parts: int | None = None
    """The number of steps, instead of `steps`, where all steps have the stage's own values."""

    @property
    def all_steps(self) -> list[StepConfig]:
        """The steps, from `steps` or `parts`."""
        return self.steps or [StepConfig() for _ in range(self.parts or 0)]

    @property
    def shares(self) -> list[float]:
        """The share of all pairs of each step."""
        steps = self.all_steps
        return [1 / len(steps) if step.share is None else step.share for step in steps]

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        steps = self.all_steps
        if bool(self.steps) == (self.parts is not None) or not steps:
            expected = "either steps or parts, at least one"
            yield f"steps: found {len(self.steps)} with parts={self.parts}, expected {expected}"
            return
        given = [step.share is not None for step in steps]
        if any(given) and (not all(given) or min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6):
            shares = [step.share for step in steps]
            yield f"steps: found the shares {shares}, expected all positive and 1 in sum, or none"
        if any(given) and self.chunk_by not in (ChunkBy.size, *BY_MARGIN):
            yield f"steps: found shares with chunk_by {self.chunk_by.value}, expected size, margin or margin_per_token"
        for number, step in enumerate(steps):
            if bool(step.sources) != (self.chunk_by is ChunkBy.sources):
                expected = "names of sources" if self.chunk_by is ChunkBy.sources else "none"
                why = f"chunk_by: {self.chunk_by.value}"
                yield f"steps.{number}.sources: found {step.sources}, expected {expected} ({why})"
            for key in ("beta", "lr"):
                value = getattr(step, key)
                if value is not None and not value > 0:
                    yield f"steps.{number}.{key}: found {value}, expected more than 0"
            if step.duration is not None:
                try:
                    Duration.parse(step.duration)
                except ConfigError as error:
                    yield f"steps.{number}.duration: {error}"
                yield from _not_in_tokens(f"steps.{number}.duration", step.duration)


def _not_in_tokens(key: str, duration: str) -> Iterator[str]:
    if duration.rstrip().endswith(("token", "tokens")):
        yield f"{key}: found '{duration}', expected steps or epochs for preference pairs"


@dataclass
class ReferenceLogpsConfig(StageConfig):
    """Log-probabilities of all answers of preference data under a frozen model: computed once, read by many."""

    model: str = reference("model")
    """The frozen model."""
    data: str = reference("tokens")
    """The preference data."""
    precision: Precision = MISSING
    """Number formats of the forward pass; those of the training that reads the result."""
    base: FrozenBase | None = None
    """Hold the linear layers in few bits, as the training that reads the result does (`adapter.base`)."""


@dataclass
class ChunkPairsConfig(StageConfig):
    """Preference pairs in chunks from easy to hard, by a model's log-probabilities before any step."""

    logps: str | None = reference("logps", None)
    """The stage that computed the log-probabilities under `reference`; the plan adds one."""
    data: str = reference("tokens")
    """The preference data whose pairs are ordered."""
    reference: str = reference("model")
    """M_0. No second model is subtracted: against itself, as DPO's reward would have it, every margin is 0."""
    precision: Precision = MISSING
    """Number formats of the pass over `reference`."""
    by: ChunkBy = MISSING
    """What orders the pairs."""
    shares: list[float] = field(default_factory=list)
    """Share of all pairs for each chunk; with `accuracy`, only the number of shares counts, one for each source."""


def is_part(text: str) -> bool:
    """
    >>> is_part("1/2"), is_part("3/2"), is_part("0.2:0.5"), is_part("half")
    (True, False, True, False)
    """
    return span_of(text) is not None


def span_of(text: str) -> tuple[float, float] | None:
    """First and last share of the pairs in a part; None if the text is not a part.

    >>> span_of("2/4"), span_of("0:0.3")
    ((0.25, 0.5), (0.0, 0.3))
    """
    number, slash, whole = text.partition("/")
    if slash and number.isdigit() and whole.isdigit() and 1 <= int(number) <= int(whole):
        return (int(number) - 1) / int(whole), int(number) / int(whole)
    try:
        start, stop = (float(word) for word in text.split(":"))
    except ValueError:
        return None
    return (start, stop) if 0 <= start < stop <= 1 else None
