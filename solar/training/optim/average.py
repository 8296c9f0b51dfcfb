"""Averages of the weights along training: an alternative to a decaying learning rate."""

from typing import Any

import torch
from torch import Tensor

from solar.config.training import AverageConfig, AverageKind


class Average:
    """A running mean of the weights; the mean and its count are part of the checkpoint.

    `ema`: step t of n has weight decay^(n - t), divided by the sum of these weights, so that the first step does not
    dominate a short training (bias correction as in Adam, arXiv 1412.6980, section 3). `window`: the plain mean over
    every `every_steps`-th step of the last `window_fraction` of training (PMA, arXiv 2505.12082).
    """

    def __init__(self, config: AverageConfig, weights: list[Tensor], total_steps: int) -> None:
        self.config, self.weights = config, weights
        self.first_step = total_steps - round(config.window_fraction * total_steps)
        self.total_steps = total_steps
        self.seen = 0
        self.means: list[Tensor] = []

    @torch.no_grad()
    def step_done(self, step: int) -> None:
        """After step `step`, counted from 1."""
        if self.config.kind is AverageKind.window:
            remaining = self.total_steps - step
            if step <= self.first_step or remaining % self.config.every_steps:
                return
        decay = self.config.decay
        ema = self.config.kind is AverageKind.ema
        share = (1 - decay) / (1 - decay ** (self.seen + 1)) if ema else 1 / (self.seen + 1)
        if not self.means:
            self.means = [weight.detach().clone().float() for weight in self.weights]
        else:
            torch._foreach_lerp_(self.means, [weight.detach().float() for weight in self.weights], share)
        self.seen += 1

    @torch.no_grad()
    def put_in(self) -> None:
        """Replace the weights with their average."""
        for weight, mean in zip(self.weights, self.means, strict=True) if self.means else ():
            weight.copy_(mean)

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen, "means": self.means}

    def restore(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
        self.means = [
            mean.to(weight.device) for mean, weight in zip(state["means"], self.weights, strict=bool(state["means"]))
        ]
