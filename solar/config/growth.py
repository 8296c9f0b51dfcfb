"""How a model grows in depth, and what is measured before it does."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from solar.config.base import StageConfig, reference
from solar.config.growth_plan import GrowthPlan, SeamInit


class Select(StrEnum):
    """The measure that chooses among candidate plans."""

    step0_loss = "step0_loss"
    """The grown model's loss before any training; less is better."""
    block_influence = "block_influence"
    """Mean block influence of the layers it repeats; less is better: they change the stream least."""


@dataclass
class UpscaleConfig(StageConfig, GrowthPlan):
    """Grow a model in depth."""

    model: str = reference("model")
    """The base."""
    diagnosis: str | None = reference("diagnosis", None)
    """Grow by the plan that this stage selected, instead of a plan written here."""
    data: str | None = reference("tokens", None)
    """Tokens on which `seam: rms_match` measures the stream."""
    materialize: bool = True
    """Write the grown weights. If false, only configuration and plan are kept, and whoever loads the model builds it
    from the files of `model`, bit for bit the same; that artifact must then stay where it is."""

    def problems(self) -> Iterator[str]:
        if self.diagnosis is not None:
            given = (["plan"] if self.plan is not None else []) + self.given_parameters()
            given += [name for name in ("init", "seam") if getattr(self, name).value not in ("copy", "none")]
            if given:
                yield f"{', '.join(given)}: given beside diagnosis, whose candidates say that; leave them out or null"
        else:
            yield from GrowthPlan.problems(self)
        if self.seam is SeamInit.rms_match and self.data is None:
            yield "data: not set, but seam rms_match measures on it; name a stage that prepares tokens"


@dataclass
class DiagnoseConfig(StageConfig):
    """Measure a model's layers and candidate plans on held-out text, before anything is trained or written."""

    model: str = reference("model")
    """The base that is measured; nothing of it is changed."""
    data: str = reference("tokens")
    """Tokens whose `valid` split is read."""
    plans: dict[str, GrowthPlan] = field(default_factory=dict)
    """Candidates, by name."""
    tokens: int = MISSING
    """Tokens of held-out text that are read."""
    sequence_length: int = MISSING
    """Tokens of a row of that text."""
    select: Select = Select.step0_loss
    """Ranks the candidates; the first candidate is selected and written down as an explicit plan."""

    def problems(self) -> Iterator[str]:
        for name in ("tokens", "sequence_length"):
            if getattr(self, name) < 2:
                yield f"{name}: found {getattr(self, name)}, expected at least 2"
        for name, plan in self.plans.items():
            yield from (f"plans.{name}.{problem}" for problem in plan.problems())
