"""One optimizer step, the same for every kind of training: a Lightning module whose batch is a whole step.

Because a batch is a whole step, the loss is divided by the step's trained tokens over all micro-batches and devices
before the backward pass, and a checkpoint can never fall between two micro-batches.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from transformers import PreTrainedModel

from solar.config.training import AverageKind, TrainConfig
from solar.data.store.dataset import Row
from solar.network.decoder import Decoder
from solar.network.head import Head, read_head
from solar.network.microbatch import MicroBatch
from solar.training.batches.steps import Step, StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.training.checkpoint.tensor_file import whole
from solar.training.distributed.sharded_loading import fill
from solar.training.distributed.sharding import ShardedStrategy, shard
from solar.training.modules.flops import Work
from solar.training.modules.unfreezing import Waiting
from solar.training.optim.average import Average
from solar.training.optim.guard import Guard
from solar.training.optim.layer_metrics import LayerWatch
from solar.training.optim.optimizers import (
    Roles,
    build_optimizers,
    explore,
    parameter_groups,
    set_learning_rate,
    settle,
)
from solar.training.optim.schedule import Schedule


class TrainingModule(pl.LightningModule):
    """What the three kinds of training share; they say what a micro-batch's summed loss is and what it is divided by.

    `record` holds the numbers of the last step, equal on all ranks.
    """

    assemble: Callable[[Sequence[Row]], MicroBatch]
    """How rows become a micro-batch."""

    def __init__(self, network: PreTrainedModel, config: TrainConfig, schedule: Schedule, role_of: Roles) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.decoders = [Decoder(network)]
        """In a list, so that the network's parameters belong to this module once."""
        self.config = config
        self.schedule = schedule
        self.first_step = 0
        """Steps that the training which this one branches off had done."""
        self.waiting = Waiting([], 0)
        self.role_of = role_of
        self.source = Path()
        """Model folder that a network without numbers is filled from."""
        self.steps_done = 0
        self.rows_done = 0
        self.tokens_done = 0
        self.wishes = [False, False]
        """Raised on any rank before a step and then granted on all ranks at once: (save, stop)."""
        self.work = Work(network)
        self.flops_done = 0.0
        averaged = list(network.parameters()) if config.average.kind is not AverageKind.none else []
        trained = [parameter for parameter in averaged if parameter.requires_grad]
        self.average = Average(config.average, trained, schedule.total_steps)
        self.guard = Guard(config.guard)
        self.watch = LayerWatch(network)
        self.record: dict[str, float] = {}

    @property
    def total_steps(self) -> int:
        """Steps when training is over, those before the branch among them."""
        return self.first_step + self.schedule.total_steps

    @abstractmethod
    def loss_sum(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over what `divisor` counts, and sums of other numbers worth watching."""

    @abstractmethod
    def divisor(self, step: Step) -> int:
        """What the summed loss of a whole step is divided by."""

    @abstractmethod
    def validation_divisor(self, batch: MicroBatch) -> int:
        """The same for a micro-batch of held-out text."""

    def prepare(self, steps: StepDataset, held_out: ValidationRows, output: Path) -> None:
        """What has to be known before the first step; called when the model is on its device."""

    def hidden(self, batch: MicroBatch, network: PreTrainedModel | None = None) -> Tensor:
        """Hidden states of the trained positions, [N, D]; of the trained network, if no other is given."""
        decoder = self.decoders[0] if network is None else Decoder(network)
        states_TD: Tensor = decoder(batch.input_ids_T, batch.position_ids_T, batch.segments)[0]
        return states_TD if batch.trained_tokens == len(states_TD) else states_TD[batch.positions_N]

    def head(self) -> Head:
        return read_head(self.network)

    def training_step(self, step: Step, batch_idx: int) -> None:
        if not step.micro_batches:
            return
        replica = self.global_rank // self.tensor_parallel
        _draw_from(_step_seed(self.config.seed, self.steps_done, replica), self.device)
        divisor = max(1, self.divisor(step))
        own_step = self.steps_done - self.first_step
        if self.trainer.world_size == 1:
            self.waiting.spare_work(own_step)
        sums = self._accumulate_gradients(step, divisor)
        self.waiting.drop_gradients(own_step)
        self.flops_done += sums.pop("flops")
        with self.watch.step(self.steps_done + 1):
            means, accepted = self._update(sums, divisor)
        self.steps_done += 1
        if self.config.average.kind is not AverageKind.none:
            self.average.step_done(own_step + 1)
        self.rows_done += step.rows
        self.tokens_done += step.tokens
        rate = max(group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups)
        counts = {"step": self.steps_done, "tokens": self.tokens_done, "flops": self.flops_done, "lr": rate}
        self.record = counts | (means if accepted else {"skipped": 1.0})

    def _update(self, sums: dict[str, float], divisor: int) -> tuple[dict[str, float], bool]:
        """Use the gradients, unless the guard throws them away: the step's means, and whether they were used."""
        grad_norm = self._clip()
        set_learning_rate(self.trainer.optimizers, self.schedule.factor(self.steps_done - self.first_step))
        means = {name: value / divisor for name, value in sums.items()} | {"grad_norm": grad_norm}
        accepted = self.guard.accepts(means["loss"], grad_norm, self.steps_done + 1)
        for optimizer in self._optimizers():
            if accepted:
                optimizer.step()
            optimizer.zero_grad()
        return means, accepted

    def _accumulate_gradients(self, step: Step, divisor: int) -> dict[str, float]:
        """Gradients of the whole step's mean; returns sums over all ranks."""
        replicas = self.trainer.world_size // self.tensor_parallel
        totals: dict[str, Tensor] = {}
        flops = 0.0
        last = len(step.micro_batches) - 1
        for number, micro_batch in enumerate(step.micro_batches):
            with self._synchronised_if(number == last):
                loss, others = self.loss_sum(micro_batch.to(self.device))
                self.manual_backward(loss * (replicas / divisor))  # their gradients are averaged
            if micro_batch.tokens:  # else a rank that has nothing to read keeps step with the others
                flops += self.work.flops(micro_batch.segments, micro_batch.trained_tokens)
            for name, value in {"loss": loss.detach(), **others}.items():
                totals[name] = totals[name] + value if name in totals else value
        wishes = {f"wish {number}": float(wish) for number, wish in enumerate(self.wishes)}
        sums = self.over_ranks({**totals, "flops": flops, **wishes})
        self.wishes = [sums.pop(name) > 0 for name in wishes]
        return sums

    def over_ranks(self, totals: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Sums over all ranks, in one exchange."""
        if self.trainer.world_size == 1:
            return {name: float(value) for name, value in totals.items()}
        own = [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in totals.values()]
        return dict(zip(totals, self.summed(torch.stack(own)).tolist(), strict=True))

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all ranks; those that work on one batch together have equal values, which count once."""
        if self.trainer.world_size == 1:
            return values
        total: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return total / self.tensor_parallel

    @property
    def tensor_parallel(self) -> int:
        """Ranks that work on one batch together."""
        strategy = self.trainer.strategy
        return strategy.tensor_parallel if isinstance(strategy, ShardedStrategy) else 1

    def agree(self, wishes: list[bool]) -> list[bool]:
        """What any rank wishes."""
        sums = self.over_ranks({str(number): float(wish) for number, wish in enumerate(wishes)})
        return [value > 0 for value in sums.values()]

    def _synchronised_if(self, last: bool) -> AbstractContextManager[Any]:
        """Data-parallel gradients travel once a step, with the last micro-batch."""
        model = self.trainer.strategy.model
        if last or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()

    def _clip(self) -> float:
        parameters = [parameter for parameter in self.parameters_in_order if parameter.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.optimizer.max_grad_norm > 0:
            clip_grads_with_norm_(parameters, self.config.optimizer.max_grad_norm, norm)
        return float(whole(norm))

    @cached_property
    def parameters_in_order(self) -> list[torch.nn.Parameter]:
        """Those of the network, once it is sharded; walking through its modules takes a tenth of a millisecond."""
        return list(self.network.parameters())

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ShardedStrategy) and not isinstance(self.decoders[0], FSDPModule):
            shard(self.decoders[0], self.network, self.trainer.strategy.device_mesh, self.config.precision)
            if next(self.network.parameters()).is_meta:
                fill(self.network, self.source, self.trainer.strategy.root_device)

    def configure_optimizers(self) -> list[Optimizer]:
        return build_optimizers(parameter_groups(self.network, self.config, self.role_of), self.config.optimizer)

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def on_train_start(self) -> None:
        if self.steps_done < self.total_steps:
            explore(self.trainer.optimizers)

    def finish(self) -> None:
        """The weights become what is read and shipped: an average, where one is kept."""
        self.average.put_in()
        settle(self.trainer.optimizers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["solar"] = {"steps_done": self.steps_done, "tokens_done": self.tokens_done}
        checkpoint["solar"]["rows_done"] = self.rows_done
        checkpoint["solar"] |= {"flops_done": self.flops_done, "guard": self.guard.state()}
        checkpoint["solar"]["average"] = self.average.state()
        checkpoint.pop("loops")  # where we are is steps_done; Lightning starts its own count anew at every restart
        checkpoint["global_step"] = self.steps_done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.steps_done = checkpoint["solar"]["steps_done"]
        self.rows_done = checkpoint["solar"]["rows_done"]
        self.tokens_done = checkpoint["solar"]["tokens_done"]
        self.flops_done = checkpoint["solar"]["flops_done"]
        guard = checkpoint["solar"]["guard"]
        if self.config.branch and self.steps_done == self.first_step:
            checkpoint["callbacks"] = {}  # what was watched of the trunk is told there
            guard |= {"skipped": 0, "rollbacks": 0}
        else:
            self.average.restore(checkpoint["solar"]["average"])
        self.guard.restore(guard)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Randomness is a function of (seed, step, rank): nothing to save, and logging or evaluating cannot shift it."""
    return (seed * 1_000_003 + step) * 65_537 + rank & (2**63 - 1)


def _draw_from(seed: int, device: torch.device) -> None:
    """Seed what a step draws from. `torch.manual_seed` formats the call stack for every device: a millisecond."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def training_module(module: pl.LightningModule) -> TrainingModule:
    """A callback's module by its own type."""
    assert isinstance(module, TrainingModule)
    return module
