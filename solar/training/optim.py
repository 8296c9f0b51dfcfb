"""Optimizers by name, and which parameters they move how fast."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.training import Trainable, TrainConfig
from solar.errors import StageError

Roles = Callable[[str], str]
"""Name of a parameter -> its role in the growth plan: old, new, seam, embed or norm."""


def freeze(network: nn.Module, config: TrainConfig, role_of: Roles) -> None:
    """Take the gradient from every parameter that the configuration does not train."""
    for name, parameter in network.named_parameters():
        role = role_of(name)
        kept_out = config.trainable is Trainable.new and role != "new"
        if kept_out or config.lr_factors.get(role, 1.0) == 0:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise StageError("trainable, lr_factors: every weight is frozen, expected at least one to train")


def parameter_groups(network: nn.Module, config: TrainConfig, role_of: Roles) -> list[dict[str, Any]]:
    """Each trained parameter in exactly one group of one peak rate and one decay, in the network's own order.

    Norms, biases and embeddings (also where the embedding is the output layer) are not decayed.
    """
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1 and id(parameter) not in embeddings
        decay = config.optimizer.weight_decay if decayed else 0.0
        rate = config.optimizer.lr * config.lr_factors.get(role_of(name), 1.0)
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "peak_lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizers(groups: list[dict[str, Any]], config: OptimizerConfig) -> list[Optimizer]:
    """The optimizer of that name; Muon is two, since AdamW moves what is not a matrix."""
    betas = (config.betas[0], config.betas[1])
    if config.name is OptimizerName.adafactor:
        return [torch.optim.Adafactor(groups, lr=config.lr, beta2_decay=-0.8)]
    if config.name is OptimizerName.muon:
        matrices = _only(groups, lambda group, parameter: parameter.ndim == 2 and group["weight_decay"] > 0)
        others = _only(groups, lambda group, parameter: parameter.ndim != 2 or group["weight_decay"] == 0)
        muon = torch.optim.Muon(matrices, lr=config.lr, momentum=betas[0], adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW(others, lr=config.lr, betas=betas, eps=config.eps)]
    return [torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)]


def _only(groups: list[dict[str, Any]], keep: Callable[[dict[str, Any], torch.Tensor], bool]) -> list[dict[str, Any]]:
    kept = [group | {"params": [p for p in group["params"] if keep(group, p)]} for group in groups]
    return [group for group in kept if group["params"]]


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Every group to its share of its own peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
