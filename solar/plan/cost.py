"""Tokens, FLOPs, disk and GPU memory of a plan: formulas, not measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solar.config.data import PrepareDataConfig
from solar.config.duration import Duration, Unit
from solar.config.growth import UpscaleConfig
from solar.config.model import ArchitectureConfig
from solar.config.optimizer import OptimizerName
from solar.config.preference import DpoConfig
from solar.config.root import Strategy, TrainerConfig
from solar.config.training import FrozenBase, Precision, Trainable, TrainConfig
from solar.plan.facts import ModelFacts
from solar.plan.plan import PlannedStage


@dataclass(frozen=True)
class Cost:
    """Cost of one stage; None where it depends on data or weights that do not exist yet."""

    train_tokens: float | None = None
    flops: float | None = None
    disk_bytes: int | None = None
    """At its peak, checkpoints included."""
    gpu_bytes: int | None = None
    """On each device: weights, gradients, optimizer state; activations come on top."""


def cost(stage: PlannedStage, stages: Mapping[str, PlannedStage], trainer: TrainerConfig) -> Cost:
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
    flops = None
    if tokens is not None and facts.work is not None:
        flops = tokens * facts.work.flops(length or 1) * (4 / 3 if isinstance(config, DpoConfig) else 1)
    number = 2 if config.precision is Precision.bf16_true else 4
    weights, trained = _weights_bytes(config, facts, number), trainable_parameters(config, facts)
    numbers = OPTIMIZER_NUMBERS[config.optimizer.name] + bool(config.optimizer.split_weights)
    optimizer = trained * (numbers * number + OPTIMIZER_BYTES[config.optimizer.name])
    checkpoints = trainer.keep_checkpoints + 1 + (config.guard.rollback_after is not None)
    disk = checkpoints * (weights + optimizer) + stored + (optimizer if config.keep_optimizer else 0)
    sharded_over = trainer.devices * trainer.num_nodes if trainer.strategy is Strategy.fsdp else 1
    return Cost(tokens, flops, disk, (weights + trained * number + optimizer) // sharded_over)


def _weights_bytes(config: TrainConfig, facts: ModelFacts, number: int) -> int:
    """Of a base in few bits, the layers' matrices are held so; norms of layers, a ten-thousandth, count as matrices."""
    sizes, depth, base = facts.architecture, facts.num_hidden_layers, config.adapter.base
    assert facts.parameters is not None
    if base is None or sizes is None or depth is None:
        return facts.parameters * number
    layers = depth * sizes.layer_parameters
    return (facts.parameters - layers) * number + round(layers * BASE_BYTES[base])


BASE_BYTES = {FrozenBase.nf4: 0.5 + 1 / 64 + 4 / 64 / 256, FrozenBase.int8: 1.0}
"""Bytes of a frozen weight with its scales; of nf4 (blocks of 64 weights), the scales have scales (256 to a float)."""
OPTIMIZER_NUMBERS = {
    OptimizerName.adamw: 2,
    OptimizerName.schedule_free: 2,
    OptimizerName.muon: 1,
    OptimizerName.adamw_8bit: 0,
    OptimizerName.adafactor: 0,
}
"""Numbers in the weights' format that an optimizer keeps for each trained weight."""
OPTIMIZER_BYTES = dict.fromkeys(OptimizerName, 0) | {OptimizerName.adamw_8bit: 2}
"""Bytes that an optimizer keeps for each trained weight, whatever the weights' format."""


def trainable_parameters(config: TrainConfig, facts: ModelFacts) -> int:
    """Weights that get gradients and optimizer state: adapters, new layers, or all that is not frozen.

    A seam counts as the old or new layer that it is.
    """
    sizes, depth, new = facts.architecture, facts.num_hidden_layers, facts.new_layers
    assert sizes is not None and depth is not None
    if config.adapter.rank:
        return depth * config.adapter.rank * _adapted_rows_and_columns(config.adapter.targets, sizes)
    others_move = config.trainable is Trainable.all or config.unfreeze_at is not None
    counts = {"new": (new * sizes.layer_parameters, True)}
    counts["old"] = (depth - new) * sizes.layer_parameters, others_move
    counts["embed"] = sizes.parameters(0) - sizes.hidden_size, others_move
    counts["norm"] = sizes.hidden_size, others_move
    return sum(count for role, (count, moves) in counts.items() if moves and config.lr_factors.get(role, 1.0))


def _adapted_rows_and_columns(targets: Sequence[str], sizes: ArchitectureConfig) -> int:
    """Inputs plus outputs of a layer's adapted matrices; times the rank, this is the number of adapter weights."""
    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    key_value = hidden // sizes.num_attention_heads * sizes.num_key_value_heads
    matrices = {"q_proj": 2 * hidden, "k_proj": hidden + key_value, "v_proj": hidden + key_value, "o_proj": 2 * hidden}
    matrices |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), hidden + inner)
    return sum(count for name, count in matrices.items() if not targets or name in targets)


def _train_tokens(config: TrainConfig, stages: Mapping[str, PlannedStage]) -> float | None:
    duration, data = Duration.parse(config.duration), stages[config.data]
    if duration.unit is Unit.tokens:
        return duration.amount
    if duration.unit is Unit.steps and isinstance(data.config, PrepareDataConfig):
        return duration.amount * config.global_batch_size * data.config.sequence_length
    if data.artifact is not None:
        return duration.amount * float(data.artifact.manifest.metrics["splits"]["train"]["tokens"])
    return None
