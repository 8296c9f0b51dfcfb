"""Which base layer runs where in a grown model, and what the new layers start from. Imports only Python's library."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class PlanName(StrEnum):
    """The ways to say which base layer runs where (`solar.growth.plans`)."""

    dus = "dus"
    """Two copies on top of each other, the first without its last layers, the second without its first (SOLAR)."""
    stack = "stack"
    """The whole base, `times` times on top of itself (G_stack)."""
    repeat_each = "repeat_each"
    """Each layer `times` times in a row (interposition)."""
    interleave = "interleave"
    """After every `every` layers, a copy of the last of them (LLaMA Pro, with `init: zero_out`)."""
    middle = "middle"
    """Layers `start` to before `stop`, run `times` times (MIDAS, RYS)."""
    explicit = "explicit"
    """The base layers one by one: `layers`."""
    slices = "slices"
    """Ranges of base layers end to end, as mergekit's `layer_range`: `slices`."""


class Init(StrEnum):
    """What the new layers start from; a layer is new where its base layer has already run below it."""

    copy = "copy"
    """An exact copy of the base layer."""
    zero_out = "zero_out"
    """A copy that writes nothing to the residual stream: the grown model computes exactly what the base does."""
    mean = "mean"
    """The mean of the base layer and the one after it."""
    noise = "noise"
    """A copy plus normal noise."""


class SeamInit(StrEnum):
    """What is done where two layers meet that are not neighbours in the base."""

    none = "none"
    """Nothing."""
    rms_match = "rms_match"
    """Above the seam, what layers write is scaled by how much louder the stream is there than in the base."""


class WeightDtype(StrEnum):
    """Number formats weights can be stored in."""

    float32 = "float32"
    """32 bits."""
    bfloat16 = "bfloat16"
    """16 bits, with the range of float32."""
    float16 = "float16"
    """16 bits, largest number 65,504."""


PARAMETERS: dict[PlanName, tuple[str, ...]] = {
    PlanName.dus: ("m", "m_fraction", "target_layers", "p", "q"),
    PlanName.stack: ("times",),
    PlanName.repeat_each: ("times",),
    PlanName.interleave: ("every",),
    PlanName.middle: ("start", "stop", "times"),
    PlanName.explicit: ("layers",),
    PlanName.slices: ("slices",),
}
"""Plan -> its parameters."""

_WAYS_TO_SAY_DUS = (["m"], ["m_fraction"], ["target_layers"], ["p", "q"])
_DUS_WAYS = "m, m_fraction, target_layers, or p and q"
ALL_PARAMETERS = tuple(dict.fromkeys(name for names in PARAMETERS.values() for name in names))


@dataclass
class GrowthPlan:
    """Which base layer runs where, and what the new layers start from. n is the base's `num_hidden_layers`."""

    plan: PlanName | None = None
    """The plan; each plan reads its own parameters."""
    m: int | None = None
    """dus: layers dropped from the end of the first copy and the start of the second; 0 to n/2 (paper, section 2)."""
    m_fraction: float | None = None
    """dus: m as a share of n, 0 to 0.5; rounded to whole layers."""
    target_layers: int | None = None
    """dus: m from the wanted number of layers, 2(n - m): even, n to 2n."""
    p: int | None = None
    """dus, with `q`: layers dropped from the end of the first copy."""
    q: int | None = None
    """dus, with `p`: layers dropped from the start of the second copy."""
    times: int | None = None
    """stack, repeat_each, middle: how often the layers run; at least 1."""
    every: int | None = None
    """interleave: 1 to n."""
    start: int | None = None
    """middle: first layer that is repeated."""
    stop: int | None = None
    """middle: the layer after the last that is repeated."""
    layers: list[int] | None = None
    """explicit: base layers, from 0, bottom to top."""
    slices: list[list[int]] | None = None
    """slices: `[start, stop]` ranges of base layers, without `stop`; bottom to top."""
    init: Init = Init.copy
    """What new layers start from."""
    noise_std: float | None = None
    """noise: standard deviation, as a share of the root mean square of the tensor it is added to."""
    seed: int | None = None
    """noise: the noise is drawn from this seed."""
    seam: SeamInit = SeamInit.none
    """What is done where two layers meet that are not neighbours in the base."""
    dtype: WeightDtype | None = None
    """Store the weights in this format; null: as in the base."""

    def problems(self) -> Iterator[str]:
        """Problems at any depth; `solar.growth.plans.resolve` finds those that depend on n."""
        if self.plan is None:
            yield f"plan: not set, expected one of {', '.join(PlanName)}"
            return
        used = PARAMETERS[self.plan]
        given = [name for name in used if getattr(self, name) is not None]
        for name in self.given_parameters():
            if name not in used:
                yield f"{name}: given, but plan {self.plan.value} takes {', '.join(used)}; set {name} to null"
        if self.plan is not PlanName.dus:
            yield from (f"{name}: not set, but plan {self.plan.value} needs it" for name in used if name not in given)
        elif given not in _WAYS_TO_SAY_DUS:
            yield f"{', '.join(given) or 'm'}: {'given together' if given else 'not set'}, expected one of {_DUS_WAYS}"
        yield from self._problems_of_init()

    def given_parameters(self) -> list[str]:
        """Names of the plan's parameters that have a value."""
        return [name for name in ALL_PARAMETERS if getattr(self, name) is not None]

    def _problems_of_init(self) -> Iterator[str]:
        for name in ("noise_std", "seed"):
            if self.init is Init.noise and getattr(self, name) is None:
                yield f"{name}: not set, but init noise needs it"
        if self.noise_std is not None and not self.noise_std >= 0:
            yield f"noise_std: found {self.noise_std}, expected 0 or more"
