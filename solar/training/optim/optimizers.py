"""Optimizers by name, and which parameters they move how fast."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.training import Trainable, TrainConfig
from solar.errors import StageError
from solar.training.optim.split_adamw import SplitAdamW

Roles = Callable[[str], str]
"""Name of a parameter -> its role in the growth plan: old, new, seam, embed or norm."""


def freeze(network: nn.Module, config: TrainConfig, role_of: Roles) -> None:
    """Switch off the gradient of every parameter that the configuration does not train."""
    for name, parameter in network.named_parameters():
        role = role_of(name)
        excluded = config.trainable is Trainable.new and role != "new" and config.unfreeze_at is None
        if excluded or config.lr_factors.get(role, 1.0) == 0:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        if config.trainable is Trainable.new and all(role_of(name) != "new" for name, _ in network.named_parameters()):
            raise StageError("trainable: found new, but the model has no new layers, as it was not grown; expected all")
        raise StageError("trainable, lr_factors: every weight is frozen, expected at least one to train")


def parameter_groups(network: nn.Module, config: TrainConfig, role_of: Roles) -> list[dict[str, Any]]:
    """The trained parameters in groups that share one peak rate and one decay, in the network's own order.

    Norms, biases and embeddings (also an embedding that is the output layer) are not decayed. With Muon, a group with
    `hidden` holds matrices of the layers, which Muon moves; AdamW moves the other groups.
    """
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    ends = embeddings | {id(parameter) for parameter in _head(network)}
    by_muon = config.optimizer.name is OptimizerName.muon
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        bias = name.endswith("bias")  # the biases of experts have two dimensions
        decayed = parameter.ndim > 1 and not bias and id(parameter) not in embeddings
        decay = config.optimizer.weight_decay if decayed else 0.0
        rate = config.optimizer.lr * config.lr_factors.get(role_of(name), 1.0)
        hidden = by_muon and parameter.ndim == 2 and not bias and id(parameter) not in ends
        group = groups.setdefault(
            (rate, decay, hidden), {"params": [], "lr": rate, "peak_lr": rate, "weight_decay": decay, "hidden": hidden}
        )
        group["params"].append(parameter)
    return list(groups.values())


def _head(network: nn.Module) -> Iterable[nn.Parameter]:
    head = network.get_output_embeddings() if isinstance(network, PreTrainedModel) else None
    return head.parameters() if head is not None else ()


def build_optimizers(groups: list[dict[str, Any]], config: OptimizerConfig) -> list[Optimizer]:
    """The optimizer by its name. Muon needs two, since AdamW moves the weights that are not matrices of the layers."""
    if config.name is OptimizerName.adafactor:
        if config.betas or config.eps:
            warnings.warn("optimizer.betas, eps: adafactor does not read them", stacklevel=2)
        return [torch.optim.Adafactor(groups, lr=config.lr)]
    assert config.betas is not None and config.eps is not None, "checked by the configuration"
    adam: dict[str, Any] = {"lr": config.lr, "betas": (config.betas[0], config.betas[1]), "eps": config.eps}
    match config.name:
        case OptimizerName.adamw_8bit:
            from bitsandbytes.optim import AdamW8bit

            return [AdamW8bit(groups, **adam)]
        case OptimizerName.schedule_free:
            from schedulefree import AdamWScheduleFree

            return [AdamWScheduleFree(groups, **adam)]
        case OptimizerName.muon:
            matrices = [group for group in groups if group["hidden"]]
            others = [group for group in groups if not group["hidden"]]
            options: dict[str, Any] = {"momentum": config.betas[0], "adjust_lr_fn": "match_rms_adamw"}
            muon = [torch.optim.Muon(matrices, lr=config.lr, **options)] if matrices else []
            return [*muon, *([torch.optim.AdamW(others, fused=True, **adam)] if others else [])]
        case _ if config.split_weights:
            return [SplitAdamW(groups, **adam)]
        case _:
            return [torch.optim.AdamW(groups, fused=True, **adam)]


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set the rate of every group to the same share of its own peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def train_weights(optimizers: Iterable[Optimizer]) -> None:
    """Schedule-free optimizers put the weights in place at which gradients are taken; other optimizers do nothing."""
    for optimizer in optimizers:
        if hasattr(optimizer, "train"):
            optimizer.train()


def eval_weights(optimizers: Iterable[Optimizer]) -> None:
    """Schedule-free optimizers put their average in place of the weights: it is what is validated and saved."""
    for optimizer in optimizers:
        if hasattr(optimizer, "eval"):
            optimizer.eval()


@contextmanager
def weights_in_eval(optimizers: Sequence[Optimizer]) -> Iterator[None]:
    """`eval_weights` for a while. A copy brings the weights back, since the optimizer's own way back is not exact."""
    switched = [optimizer for optimizer in optimizers if hasattr(optimizer, "eval") and _in_train_mode(optimizer)]
    weights = [weight for optimizer in switched for group in optimizer.param_groups for weight in group["params"]]
    before = [weight.detach().clone() for weight in weights]
    eval_weights(switched)
    try:
        yield
    finally:
        train_weights(switched)
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


def _in_train_mode(optimizer: Optimizer) -> bool:
    return bool(optimizer.param_groups[0]["train_mode"])
