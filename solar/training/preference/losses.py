"""Losses on preference pairs, from the log-probabilities of whole answers; one number for each pair, in nats.

Shapes: P pairs. A reward is an answer's log-ratio of policy and reference (times beta: DPO's implicit reward).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from solar.config.preference import REFERENCE_FREE, DpoConfig, PreferenceLoss


@dataclass
class AnswerLogps:
    """Log-probabilities of both answers under policy and reference, each [P]; and answer lengths in tokens."""

    chosen_P: Tensor
    rejected_P: Tensor
    reference_chosen_P: Tensor
    reference_rejected_P: Tensor
    chosen_tokens_P: Tensor
    rejected_tokens_P: Tensor

    @property
    def chosen_rewards_P(self) -> Tensor:
        return self.chosen_P - self.reference_chosen_P

    @property
    def rejected_rewards_P(self) -> Tensor:
        return self.rejected_P - self.reference_rejected_P

    @property
    def margins_P(self) -> Tensor:
        return self.chosen_rewards_P - self.rejected_rewards_P

    def per_token(self) -> "AnswerLogps":
        """Each answer's mean instead of its sum."""
        return replace(
            self,
            chosen_P=self.chosen_P / self.chosen_tokens_P,
            rejected_P=self.rejected_P / self.rejected_tokens_P,
            reference_chosen_P=self.reference_chosen_P / self.chosen_tokens_P,
            reference_rejected_P=self.reference_rejected_P / self.rejected_tokens_P,
        )


def preference_loss(logps: AnswerLogps, config: DpoConfig, reference_point: float = 0.0) -> Tensor:
    """The loss of each pair, [P]. `reference_point` is KTO's z0, the mean reward of the step before.

    >>> zero = torch.zeros(1)
    >>> start = AnswerLogps(zero - 9, zero - 7, zero - 9, zero - 7, zero + 3, zero + 3)
    >>> preference_loss(start, DpoConfig(loss=PreferenceLoss.sigmoid, beta=0.1))  # policy = reference: ln 2
    tensor([0.6931])
    """
    if config.length_normalized or config.loss in REFERENCE_FREE:
        logps = logps.per_token()
    return LOSSES[config.loss](logps, config, reference_point)


def sigmoid(logps: AnswerLogps, config: DpoConfig, _: float = 0.0) -> Tensor:
    """-log s(beta margin); label smoothing mixes in the loss of the swapped pair."""
    loss_P = -logsigmoid(config.beta * logps.margins_P) * (1 - config.label_smoothing)
    if config.label_smoothing:
        loss_P = loss_P - logsigmoid(-config.beta * logps.margins_P) * config.label_smoothing
    return loss_P


def ipo(logps: AnswerLogps, config: DpoConfig, _: float = 0.0) -> Tensor:
    """The margin is drawn to 1 / (2 tau), not to infinity."""
    return torch.square(logps.margins_P - 1 / (2 * config.beta))


def dpo_positive(logps: AnswerLogps, config: DpoConfig, _: float = 0.0) -> Tensor:
    """DPO; each nat that the chosen answer lies below the reference takes alpha from the margin."""
    fallen_P = (-logps.chosen_rewards_P).clamp(min=0)
    return -logsigmoid(config.beta * (logps.margins_P - config.alpha * fallen_P))


def rpo(logps: AnswerLogps, config: DpoConfig, _: float = 0.0) -> Tensor:
    """DPO plus alpha times the chosen answer's next-token loss."""
    tokens_P = 1 if config.length_normalized else logps.chosen_tokens_P
    return sigmoid(logps, config) - config.alpha * logps.chosen_P / tokens_P


def simpo(logps: AnswerLogps, config: DpoConfig, _: float = 0.0) -> Tensor:
    """-log s(beta (difference of log-probabilities per token) - gamma)."""
    return -logsigmoid(config.beta * (logps.chosen_P - logps.rejected_P) - config.gamma)


def orpo(logps: AnswerLogps, config: DpoConfig, _: float = 0.0) -> Tensor:
    """odds(y) = p / (1 - p), p being the geometric mean of the token probabilities."""

    def log_odds(logp_P: Tensor) -> Tensor:
        return logp_P - torch.log1p(-torch.exp(logp_P))

    ratio_P = log_odds(logps.chosen_P) - log_odds(logps.rejected_P)
    return -logps.chosen_P - config.beta * logsigmoid(ratio_P)


def kto(logps: AnswerLogps, config: DpoConfig, reference_point: float = 0.0) -> Tensor:
    """Mean of 1 - s(beta (r - z0)) for the chosen answer and 1 - s(beta (z0 - r)) for the rejected answer."""
    chosen_P = 1 - torch.sigmoid(config.beta * (logps.chosen_rewards_P - reference_point))
    rejected_P = 1 - torch.sigmoid(config.beta * (reference_point - logps.rejected_rewards_P))
    return (chosen_P + rejected_P) / 2


def apo_zero(logps: AnswerLogps, config: DpoConfig, _: float = 0.0) -> Tensor:
    """1 - s(beta r) for the chosen answer plus s(beta r) for the rejected answer."""
    return (
        1 - torch.sigmoid(config.beta * logps.chosen_rewards_P) + torch.sigmoid(config.beta * logps.rejected_rewards_P)
    )


LOSSES: dict[PreferenceLoss, Callable[[AnswerLogps, DpoConfig, float], Tensor]] = {
    PreferenceLoss.sigmoid: sigmoid,
    PreferenceLoss.ipo: ipo,
    PreferenceLoss.dpo_positive: dpo_positive,
    PreferenceLoss.rpo: rpo,
    PreferenceLoss.simpo: simpo,
    PreferenceLoss.orpo: orpo,
    PreferenceLoss.kto: kto,
    PreferenceLoss.apo_zero: apo_zero,
}
