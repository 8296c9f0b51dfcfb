"""Preference optimization: its losses by name, and what one stage is told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from solar.config.base import reference
from solar.config.training import TrainConfig


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
