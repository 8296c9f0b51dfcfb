"""Numbers that show whether preference optimization is healthy, from the log-probabilities of whole answers.

Shapes: P pairs.
"""

import torch
from torch import Tensor

from solar.config.preference import REFERENCE_FREE, DpoConfig
from solar.training.preference.losses import AnswerLogps


def health(logps: AnswerLogps, config: DpoConfig) -> dict[str, Tensor]:
    """Sums over pairs; they tell a healthy run from a run in which both answers become unlikely.

    Losses without a reference have no rewards, and their margins are differences of log-probabilities per token.
    """
    per_token, beta = logps.per_token(), config.beta
    margins_P = (per_token if config.loss in REFERENCE_FREE else logps).margins_P
    numbers = {
        "accuracy": margins_P > 0,
        "margin": beta * margins_P,
        "chosen_logps": logps.chosen_P,
        "rejected_logps": logps.rejected_P,
        "chosen_tokens": logps.chosen_tokens_P,
        "rejected_tokens": logps.rejected_tokens_P,
    }
    if config.loss not in REFERENCE_FREE:
        numbers |= {
            "chosen_reward": beta * logps.chosen_rewards_P,
            "rejected_reward": beta * logps.rejected_rewards_P,
            "chosen_fell": logps.chosen_rewards_P < 0,
            "kl_per_token": (k3(per_token.chosen_rewards_P) + k3(per_token.rejected_rewards_P)) / 2,
        }
    return {name: value.detach().float().sum() for name, value in numbers.items()}


def k3(log_ratio_P: Tensor) -> Tensor:
    """Estimate of KL(policy, reference) from log(policy / reference); never negative (Schulman, "Approximating KL
    Divergence", 2020). The answers are the data's, not samples of the policy: a sign of drift, not the divergence.

    >>> k3(torch.tensor([0.0, 0.5]))  # e^-0.5 - 1 + 0.5
    tensor([0.0000, 0.1065])
    """
    return torch.expm1(-log_ratio_P) + log_ratio_P
