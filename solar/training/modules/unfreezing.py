"""With `trainable: new`, the weights of the base may begin to move at a later step (`unfreeze_at`)."""

from torch import nn

from solar.config.training import Trainable, TrainConfig
from solar.training.optim.optimizers import Roles


class FrozenUntil:
    """Parameters that do not move before `until` steps are done. Their state depends on the step alone.

    The optimizer has them from the start: a parameter without a gradient neither moves nor decays, and the optimizer
    keeps no state for a parameter before its first gradient.
    """

    def __init__(self, parameters: list[nn.Parameter], until: int) -> None:
        self.parameters, self.until = parameters, until

    @classmethod
    def of(cls, network: nn.Module, config: TrainConfig, role_of: Roles, until: int) -> "FrozenUntil":
        unfreezes = config.trainable is Trainable.new and config.unfreeze_at is not None
        named = network.named_parameters() if unfreezes else ()
        return cls([p for name, p in named if p.requires_grad and role_of(name) != "new"], until)

    def spare_work(self, step: int) -> None:
        """Before the forward pass: do not compute gradients that would be dropped. For a single process."""
        for parameter in self.parameters:
            parameter.requires_grad_(step >= self.until)

    def drop_gradients(self, step: int) -> None:
        """After the backward pass of step `step`, counted from 0."""
        if step < self.until:
            for parameter in self.parameters:
                parameter.grad = None
