"""Continued pretraining and instruction tuning: next-token loss on the tokens that the data's labels select."""

from torch import Tensor

from solar.config.training import NextTokenConfig
from solar.network.balance import balance_loss
from solar.network.microbatch import MicroBatch, from_rows
from solar.training.batches.steps import Step
from solar.training.modules.step import TrainingModule


class NextToken(TrainingModule):
    """Every trained token has the same weight in the loss, whatever its micro-batch, row or device."""

    config: NextTokenConfig
    assemble = staticmethod(from_rows)

    def loss_sum(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        z_loss = self.config.z_loss if self.network.training else None
        hidden_ND = self.hidden(batch)  # first: the forward pass of a sharded network gathers the head
        loss, penalty = self.head().loss_sum(hidden_ND, batch.targets_N, z_loss or 0.0)
        others = {} if z_loss is None else {"z_loss": penalty}
        if routed := self.decoders[0].routed:
            balance = balance_loss(self.network, routed) * batch.trained_tokens
            loss = loss + self.decoders[0].balance_weight * balance
            others["balance_loss"] = balance.detach()
        return loss, others

    def divisor(self, step: Step) -> int:
        return step.trained_tokens

    def validation_divisor(self, batch: MicroBatch) -> int:
        return batch.trained_tokens


class ContinuedPretraining(NextToken):
    """Every token of every document is trained."""


class InstructionTuning(NextToken):
    """The assistant's tokens are trained, including the end of its turn."""
