"""Weights, gradients and optimizer state sharded over devices (FSDP2); checkpoints are whole and hold no pickle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.optim import Optimizer
from transformers import PreTrainedModel

from solar.config.training import Precision
from solar.training.checkpoint.folder import SafetensorsCheckpointIO
from solar.training.checkpoint.tensor_file import save_file
from solar.training.checkpoint.tree import flatten
from solar.training.distributed.tensor_parallel import split

FROM_RANK_0 = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 with checkpoints that any number of devices can resume: rank 0 writes and reads them tensor by tensor.

    `replicas` batches are computed at a time, each by `tensor_parallel` devices together.
    """

    def __init__(self, replicas: int, tensor_parallel: int) -> None:
        super().__init__(replicas, tensor_parallel, save_distributed_checkpoint=False)
        self.tensor_parallel = tensor_parallel

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        inner = getattr(optimizer, "_optimizer", optimizer)
        return get_optimizer_state_dict(self._whole_module, inner)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return get_model_state_dict(self._whole_module)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.is_global_zero:
            SafetensorsCheckpointIO().save_checkpoint(checkpoint, filepath, storage_options)
        else:
            save_file(flatten(checkpoint)[1], None)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        whole = SafetensorsCheckpointIO().load_checkpoint(Path(checkpoint_path))
        set_model_state_dict(self._whole_module, whole["state_dict"], options=FROM_RANK_0)
        for optimizer, state in zip(self.optimizers, whole["optimizer_states"], strict=True):
            named = by_name(state, optimizer, self._whole_module)
            set_optimizer_state_dict(self._whole_module, optimizer, named, options=FROM_RANK_0)
        return whole

    @property
    def _whole_module(self) -> nn.Module:
        assert self.lightning_module is not None
        return self.lightning_module


def by_name(state: dict[str, Any], optimizer: Optimizer, module: nn.Module) -> dict[str, Any]:
    """An optimizer's state with parameters by name, also if a single process has saved them by number.

    torch would take the numbers for names, match no parameter, and silently start the optimizer anew.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]

    def name(key: int | str) -> str:
        return key if isinstance(key, str) else order[key]

    groups = [group | {"params": [name(key) for key in group["params"]]} for group in state["param_groups"]]
    return {"state": {name(key): values for key, values in state["state"].items()}, "param_groups": groups}


def shard(root: nn.Module, network: PreTrainedModel, mesh: DeviceMesh, precision: Precision) -> None:
    """Shard every decoder layer by itself, and the other weights (embedding, last norm, head) as part of `root`.

    The forward pass of `root` gathers these weights, and leaves them gathered until the backward pass ends. `mesh` is
    [data_parallel, tensor_parallel]; layers are first split over the second dimension, if it is larger than 1.
    """
    if mesh["tensor_parallel"].size() > 1:
        split(network, mesh["tensor_parallel"])
    mesh = mesh["data_parallel"]
    policy = MixedPrecisionPolicy()
    if precision is Precision.bf16_mixed:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in decoder_layers(network):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)


def decoder_layers(network: PreTrainedModel) -> Sequence[nn.Module]:
    """The longest list of modules in the network: its repeated layers."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return max((list(layers) for layers in lists), key=len)
