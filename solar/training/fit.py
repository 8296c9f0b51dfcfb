"""Train a model folder on a tokens folder."""

import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from solar.config.duration import Duration
from solar.config.root import Strategy, TrainerConfig
from solar.config.run_context import RunContext
from solar.config.training import SELECTIVE, NextTokenConfig, TrainConfig
from solar.data.encode.trained_template import save_for_model
from solar.data.order.order import Order
from solar.data.store.dataset import Row, TokenDataset
from solar.errors import DataError
from solar.growth.roles import roles
from solar.network.adapter import add_adapter
from solar.network.compatibility import check_positions, check_vocabulary
from solar.network.loading import load_network
from solar.network.microbatch import Ints
from solar.network.quantised.base import quantise
from solar.training.batches.continuation import Trunk
from solar.training.batches.row_subset import chosen_rows
from solar.training.batches.steps import Budget, StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.training.distributed.sharded_loading import empty_network
from solar.training.interrupt import listening
from solar.training.lightning import replica_of
from solar.training.memory import own_device
from solar.training.modules.compilation import compile_layers
from solar.training.modules.float8 import check_float8, compute_in_float8
from solar.training.modules.recomputation import recompute_activations
from solar.training.modules.step import TrainingModule
from solar.training.modules.unfreezing import FrozenUntil
from solar.training.optim.optimizers import Roles, freeze
from solar.training.optim.schedule import Schedule
from solar.training.trainer import Metrics, train

MakeModule = Callable[[PreTrainedModel, Any, Schedule, Roles], TrainingModule]
"""Network, the stage's configuration, learning rates, roles of parameters -> what Lightning runs."""


def fit(
    make_module: MakeModule,
    config: TrainConfig,
    model_dir: Path,
    data_dir: Path,
    output: Path,
    context: RunContext,
    chunk_of_rows: Ints | None = None,
) -> Metrics:
    """Write `model/` and `logs/metrics.jsonl` to `output`; the caller removes `checkpoints/` when it keeps the model.

    A second call with the same arguments goes on from the newest whole checkpoint. Raises `Interrupted` after a signal
    (everything is saved), and `DataError` or `StageError` where data and model do not allow the training.
    """
    _silence_lightning()
    trainer = context.trainer
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    with listening() as stop:
        replica, replicas = replica_of(trainer, config)
        rows = TokenDataset(data_dir, "train")
        if not len(rows):
            raise DataError(f"{data_dir}: the train split is empty, expected at least one row")
        order = chosen_rows(config, rows, Order.of(rows, config.seed), chunk_of_rows)
        trunk = Trunk.of(model_dir) if config.branch else None
        order = trunk.rest(order) if trunk else order
        budget = Budget.of(Duration.parse(config.duration), order, config.global_batch_size)
        role_of = roles(json.loads((model_dir / "config.json").read_text(encoding="utf-8")))
        network = _network(model_dir, config, trainer, role_of)
        check_vocabulary(network, rows.header.vocab_size, model_dir, data_dir)
        check_positions(network, rows, model_dir, data_dir)
        module = make_module(network, config, budget.schedule(config.schedule, order), role_of)
        module.source = model_dir
        if config.unfreeze_at is not None:
            until = budget.steps_of(Duration.parse(config.unfreeze_at), order)
            module.frozen = FrozenUntil.of(network, config, role_of, until)
        module.first_step = trunk.steps if trunk else 0
        size = trainer.micro_batch_sizes.get(context.stage, trainer.micro_batch_size)
        steps = StepDataset(rows, order, module.assemble, budget, size, replica, replicas)
        valid: TokenDataset | list[Row] = TokenDataset(data_dir, "valid") if "valid" in rows.header.splits else []
        held_out = ValidationRows(valid, module.assemble, size, config.max_valid_rows, replica, replicas)
        metrics = train(module, steps, held_out, model_dir, output, context, stop)
        if os.environ.get("RANK", "0") == "0":
            save_for_model(output / "model", data_dir)
        return metrics


def _network(model_dir: Path, config: TrainConfig, trainer: TrainerConfig, role_of: Roles) -> PreTrainedModel:
    """The model with adapter, frozen weights, recomputed activations and compiled layers, as configured."""
    sharded = trainer.strategy is Strategy.fsdp
    float8 = isinstance(config, NextTokenConfig) and config.float8
    if float8:
        check_float8(trainer)
    network = (empty_network if sharded else load_network)(model_dir, config.precision)
    if config.adapter.base is not None:
        quantise(network, config.adapter.base, config.precision, own_device(trainer.device_type))
    if config.adapter.rank:
        add_adapter(network, config.adapter, config.seed)
    freeze(network, config, role_of)
    if float8:
        compute_in_float8(network)
    if config.activation_checkpointing:
        recompute_activations(network, config.activation_checkpointing == SELECTIVE)
    compile_layers(network, trainer)
    return network


def _silence_lightning() -> None:
    """Lightning's remarks about itself would break the stage's one live line."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
