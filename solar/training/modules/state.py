"""The state of a training and its life: built, sharded, started, saved, restored, finished."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer
from transformers import PreTrainedModel

from solar.config.training import AverageKind, TrainConfig
from solar.data.store.dataset import Row
from solar.network.decoder import Decoder
from solar.network.microbatch import MicroBatch
from solar.training.distributed.sharded_loading import fill
from solar.training.distributed.sharding import ShardedStrategy, shard
from solar.training.modules.flops import Work
from solar.training.modules.ranks import RankedModule
from solar.training.modules.unfreezing import FrozenUntil
from solar.training.optim.average import Average
from solar.training.optim.guard import Guard
from solar.training.optim.layer_metrics import LayerWatch
from solar.training.optim.optimizers import Roles, build_optimizers, eval_weights, parameter_groups, train_weights
from solar.training.optim.schedule import Schedule


class TrainingState(RankedModule):
    """What a checkpoint holds of a training, and what Lightning asks of it apart from the steps."""

    assemble: Callable[[Sequence[Row]], MicroBatch]
    """How rows become a micro-batch."""

    def __init__(self, network: PreTrainedModel, config: TrainConfig, schedule: Schedule, role_of: Roles) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.decoders = [Decoder(network)]
        """A list, so that the network's parameters are registered in this module only once."""
        self.config = config
        self.schedule = schedule
        self.first_step = 0
        """Steps that the training had done which this training branches off."""
        self.frozen = FrozenUntil([], 0)
        self.role_of = role_of
        self.source = Path()
        """Model folder that fills a network on the meta device."""
        self.steps_done = 0
        self.rows_done = 0
        self.tokens_done = 0
        self.requests = [False, False]
        """(save, stop). Any rank raises them before a step; during the step all ranks learn of them."""
        self.work = Work(network)
        self.flops_done = 0.0
        averaged = list(network.parameters()) if config.average.kind is not AverageKind.none else []
        trained = [parameter for parameter in averaged if parameter.requires_grad]
        self.average = Average(config.average, trained, schedule.total_steps)
        self.guard = Guard(config.guard)
        self.watch = LayerWatch(network)
        self.record: dict[str, float] = {}
        """Numbers of the last step, the same on all ranks."""

    @property
    def total_steps(self) -> int:
        """Steps at the end of training, those before the branch included."""
        return self.first_step + self.schedule.total_steps

    @cached_property
    def parameters_in_order(self) -> list[torch.nn.Parameter]:
        """The network's parameters, once the network is sharded. Collecting them takes a tenth of a millisecond."""
        return list(self.network.parameters())

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ShardedStrategy) and not isinstance(self.decoders[0], FSDPModule):
            shard(self.decoders[0], self.network, self.trainer.strategy.device_mesh, self.config.precision)
            if next(self.network.parameters()).is_meta:
                fill(self.network, self.source, self.trainer.strategy.root_device)

    def configure_optimizers(self) -> list[Optimizer]:
        return build_optimizers(parameter_groups(self.network, self.config, self.role_of), self.config.optimizer)

    def on_train_start(self) -> None:
        if self.steps_done < self.total_steps:
            train_weights(self.trainer.optimizers)

    def finish(self) -> None:
        """Put the weights in place that are validated and saved: an average, where the configuration keeps one."""
        self.average.put_in()
        eval_weights(self.trainer.optimizers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["solar"] = {
            "steps_done": self.steps_done,
            "tokens_done": self.tokens_done,
            "rows_done": self.rows_done,
            "flops_done": self.flops_done,
            "guard": self.guard.state(),
            "average": self.average.state(),
        }
        checkpoint.pop("loops")  # steps_done says where training is; Lightning counts from 0 after every restart
        checkpoint["global_step"] = self.steps_done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["solar"]
        self.steps_done, self.rows_done = state["steps_done"], state["rows_done"]
        self.tokens_done, self.flops_done = state["tokens_done"], state["flops_done"]
        guard = state["guard"]
        if self.config.branch and self.steps_done == self.first_step:
            checkpoint["callbacks"] = {}  # the trunk reports its own curves, skipped steps and rollbacks
            guard |= {"skipped": 0, "rollbacks": 0}
        else:
            self.average.restore(state["average"])
        self.guard.restore(guard)
