"""Weights that wait: with `trainable: new`, those of the base may begin to move at a step (`unfreeze_at`)."""

from torch import nn

from solar.config.training import Trainable, TrainConfig
from solar.training.optim.optimizers import Roles


class Waiting:
    """Parameters that do not move before `until` steps are done. What they are is a function of the step alone.

    They are in the optimizer from the start: without a gradient it neither moves nor decays them, and keeps no state of
    them until they get one.
    """

    def __init__(self, parameters: list[nn.Parameter], until: int) -> None:
        self.parameters, self.until = parameters, until

    @classmethod
    def of(cls, network: nn.Module, config: TrainConfig, role_of: Roles, until: int) -> "Waiting":
        waits = config.trainable is Trainable.new and config.unfreeze_at is not None
        named = network.named_parameters() if waits else ()
        return cls([p for name, p in named if p.requires_grad and role_of(name) != "new"], until)

    def spare_work(self, step: int) -> None:
        """Before the forward pass: gradients that would be dropped need not be computed. For a single process."""
        for parameter in self.parameters:
            parameter.requires_grad_(step >= self.until)

    def drop_gradients(self, step: int) -> None:
        """After the backward pass of step `step`, counted from 0."""
        if step < self.until:
            for parameter in self.parameters:
                parameter.grad = None
