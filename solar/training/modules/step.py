"""One optimizer step, the same for every kind of training: a Lightning module whose batch is a whole step.

Because a batch is a whole step, the loss is divided by the step's trained tokens over all micro-batches and devices
before the backward pass, and a checkpoint can never fall between two micro-batches.
"""

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedModel

from solar.config.training import AverageKind
from solar.network.decoder import Decoder
from solar.network.head import Head, read_head
from solar.network.microbatch import MicroBatch
from solar.training.batches.steps import Step, StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.training.checkpoint.tensor_file import whole
from solar.training.modules.state import TrainingState
from solar.training.optim.optimizers import set_learning_rate


class TrainingModule(TrainingState):
    """What all kinds of training share. A kind defines the summed loss of a micro-batch, and its divisor."""

    @abstractmethod
    def loss_sum(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over what `divisor` counts, and sums of other numbers to log."""

    @abstractmethod
    def divisor(self, step: Step) -> int:
        """What the summed loss of a whole step is divided by."""

    @abstractmethod
    def validation_divisor(self, batch: MicroBatch) -> int:
        """What the summed loss of a held-out micro-batch is divided by."""

    def prepare(self, steps: StepDataset, held_out: ValidationRows, output: Path) -> None:
        """Compute what must be known before the first step. The model is on its device by then."""

    def hidden(self, batch: MicroBatch, network: PreTrainedModel | None = None) -> Tensor:
        """Hidden states of the trained positions, [N, D]; of the trained network, if no other network is given."""
        decoder = self.decoders[0] if network is None else Decoder(network)
        states_TD: Tensor = decoder(batch.input_ids_T, batch.position_ids_T, batch.segments)[0]
        return states_TD if batch.trained_tokens == len(states_TD) else states_TD[batch.positions_N]

    def head(self) -> Head:
        return read_head(self.network)

    def training_step(self, step: Step, batch_idx: int) -> None:
        if not step.micro_batches:
            return
        _seed_draws(self.config.seed, self.steps_done, self.global_rank // self.tensor_parallel, self.device)
        divisor = max(1, self.divisor(step))
        own_step = self.steps_done - self.first_step
        if self.trainer.world_size == 1:
            self.frozen.spare_work(own_step)
        totals = self._accumulate_gradients(step, divisor)
        self.frozen.drop_gradients(own_step)
        with self.watch.step(self.steps_done + 1):
            means, accepted = self._update(totals, divisor)
        self.steps_done += 1
        if self.config.average.kind is not AverageKind.none:
            self.average.step_done(own_step + 1)
        self.rows_done += step.rows
        self.tokens_done += step.tokens
        rate = max(group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups)
        counts = {"step": self.steps_done, "tokens": self.tokens_done, "flops": self.flops_done, "lr": rate}
        self.record = counts | (means if accepted else {"skipped": 1.0})

    def _accumulate_gradients(self, step: Step, divisor: int) -> dict[str, Tensor | float]:
        """Leave the gradients of the whole step's mean; return this rank's sums."""
        totals: dict[str, Tensor] = {}
        flops = 0.0
        last = len(step.micro_batches) - 1
        for number, micro_batch in enumerate(step.micro_batches):
            with self._synchronised_if(number == last):
                loss, others = self.loss_sum(micro_batch.to(self.device))
                self.manual_backward(loss * (self.replicas / divisor))  # the replicas' gradients are averaged
            if micro_batch.tokens:  # a rank without rows computes one token, to keep step with the others
                flops += self.work.flops(micro_batch.segments, micro_batch.trained_tokens)
            for name, value in {"loss": loss.detach(), **others}.items():
                totals[name] = totals[name] + value if name in totals else value
        return {**totals, "flops": flops}

    def _update(self, totals: dict[str, Tensor | float], divisor: int) -> tuple[dict[str, float], bool]:
        """Apply the gradients unless the guard refuses them: the step's means, and whether the guard accepted."""
        grad_norm, sums = self._read(totals, self._clip())
        self.flops_done += sums.pop("flops")
        set_learning_rate(self.trainer.optimizers, self.schedule.factor(self.steps_done - self.first_step))
        means = {name: value / divisor for name, value in sums.items()} | {"grad_norm": grad_norm}
        accepted = self.guard.accepts(means["loss"], grad_norm, self.steps_done + 1)
        for optimizer in self._optimizers():
            if accepted:
                optimizer.step()
            optimizer.zero_grad()
        return means, accepted

    def _read(self, totals: dict[str, Tensor | float], norm: Tensor) -> tuple[float, dict[str, float]]:
        """Gradient norm and sums over all ranks. The host waits for the device here, and nowhere else in a step."""
        requests = {f"request {number}": float(raised) for number, raised in enumerate(self.requests)}
        totals = {**totals, **requests}
        sums_of_all = self.stacked_sums(totals)
        sums = torch.cat([sums_of_all, norm.reshape(1).to(sums_of_all.dtype)]).tolist()
        named = dict(zip(totals, sums[:-1], strict=True))
        self.requests = [named.pop(name) > 0 for name in requests]
        return sums[-1], named

    def _clip(self) -> Tensor:
        """Scale the gradients down to the configured norm, and return the norm they had."""
        parameters = [parameter for parameter in self.parameters_in_order if parameter.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.optimizer.max_grad_norm > 0:
            clip_grads_with_norm_(parameters, self.config.optimizer.max_grad_norm, norm)
        return whole(norm)

    def _synchronised_if(self, last: bool) -> AbstractContextManager[Any]:
        """Data-parallel ranks exchange gradients once a step, with the last micro-batch."""
        model = self.trainer.strategy.model
        if last or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()


def training_module(module: pl.LightningModule) -> TrainingModule:
    """The module that Lightning hands to a callback, by its own type."""
    assert isinstance(module, TrainingModule)
    return module


def _seed_draws(seed: int, step: int, replica: int, device: torch.device) -> None:
    """Make the draws of a step a function of (seed, step, replica): logging, validating and resuming cannot shift them.

    Dropout also depends on how a step is cut into micro-batches: a layer draws for a whole micro-batch at once.
    """
    mixed = (seed * 1_000_003 + step) * 65_537 + replica & (2**63 - 1)
    torch.default_generator.manual_seed(mixed)  # torch.manual_seed takes a millisecond: it formats the call stack
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)
    elif device.type == "mps":
        torch.mps.manual_seed(mixed)
