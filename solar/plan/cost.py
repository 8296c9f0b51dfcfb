"""What a plan will take: tokens, arithmetic, disk, GPU memory. Formulas, not measurements."""

from collections.abc import Mapping
from dataclasses import dataclass

from solar.config.data import PrepareDataConfig
from solar.config.duration import Duration, Unit
from solar.config.growth import UpscaleConfig
from solar.config.preference import DpoConfig
from solar.config.training import Precision, TrainConfig
from solar.plan.facts import ModelFacts
from solar.plan.plan import PlannedStage


@dataclass(frozen=True)
class Cost:
    """Of one stage; None where it depends on data or weights that are not here yet."""

    train_tokens: float | None = None
    flops: float | None = None
    disk_bytes: int | None = None
    """At its peak, checkpoints included."""
    gpu_bytes: int | None = None
    """On each device: weights, gradients, optimizer state; activations come on top."""


def cost(stage: PlannedStage, stages: Mapping[str, PlannedStage], devices: int, sharded: bool) -> Cost:
    """Estimate a stage."""
    facts, config = stage.facts, stage.config
    if facts is None or facts.parameters is None:
        return Cost()
    stored = facts.parameters * facts.bytes_per_parameter
    if isinstance(config, UpscaleConfig) and not config.materialize:
        return Cost(disk_bytes=0)
    if not isinstance(config, TrainConfig):
        return Cost(disk_bytes=stored)
    tokens = _train_tokens(config, stages)
    data = stages[config.data].config
    length = data.sequence_length if isinstance(data, PrepareDataConfig) else 0
    flops = (
        None
        if tokens is None
        else tokens * flops_per_token(facts, length) * (4 / 3 if isinstance(config, DpoConfig) else 1)
    )
    state = facts.parameters * (8 if config.precision is Precision.bf16_true else 16)
    optimizer = facts.parameters * (4 if config.precision is Precision.bf16_true else 8)
    return Cost(tokens, flops, 2 * (stored + optimizer) + stored, state // (devices if sharded else 1))


def flops_per_token(facts: ModelFacts, sequence_length: int) -> float:
    """Training FLOPs a token: 6 for each matmul parameter, and causal attention, 6 x layers x hidden x length.

    A 48-layer Mistral at 4,096 tokens:

    >>> from solar.config.model import ArchitectureConfig
    >>> mistral = ArchitectureConfig(32, 4096, 14336, 32, 8, 32000, 4096, False, 1e4, 1e-5)
    >>> f"{flops_per_token(ModelFacts(mistral, 48, 2), 4096):,.0f}"
    '68,432,166,912'
    """
    architecture, layers = facts.architecture, facts.num_hidden_layers
    assert architecture is not None and layers is not None
    per_layer = architecture.layer_parameters - 2 * architecture.hidden_size
    matmul = layers * per_layer + architecture.vocab_size * architecture.hidden_size
    return 6.0 * matmul + 6.0 * layers * architecture.hidden_size * sequence_length


def _train_tokens(config: TrainConfig, stages: Mapping[str, PlannedStage]) -> float | None:
    duration, data = Duration.parse(config.duration), stages[config.data]
    if duration.unit is Unit.tokens:
        return duration.amount
    if duration.unit is Unit.steps and isinstance(data.config, PrepareDataConfig):
        return duration.amount * config.global_batch_size * data.config.sequence_length
    if data.artifact is not None:
        return duration.amount * float(data.artifact.manifest.metrics["splits"]["train"]["tokens"])
    return None
