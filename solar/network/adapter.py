"""Low-rank adapters (LoRA, arXiv 2106.09685): trained beside frozen weights, then folded into these weights."""

from collections.abc import Sequence, Set

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from solar.config.training import AdapterConfig
from solar.errors import StageError, hint, one_line

NAME = "solar"


def add_adapter(network: PreTrainedModel, config: AdapterConfig, seed: int) -> None:
    """Put adapters beside the linear layers, in place, and freeze everything else. Needs `peft`."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise StageError("adapter.rank: needs peft, which is not installed; pip install 'solar[lora]'") from None
    _check_names(network, config.targets)
    torch.manual_seed(seed)
    targets = list(config.targets) or "all-linear"
    sizes = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout}
    settings = LoraConfig(**sizes, target_modules=targets)
    try:
        inject_adapter_in_model(settings, network, adapter_name=NAME)
    except ValueError as error:
        raise StageError(f"adapter.targets: found {', '.join(config.targets) or 'none'}; {one_line(error)}") from None
    _check_targets(network)


def _check_names(network: PreTrainedModel, targets: Sequence[str]) -> None:
    """Refuse every unknown target; peft refuses only if it finds none of the targets."""
    linear = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    head = network.get_output_embeddings()
    known = sorted({name.rpartition(".")[2] for name in linear if network.get_submodule(name) is not head})
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name, _ in network.named_modules()):
            raise StageError(f"adapter.targets: found {target}, which is no layer of the model{hint(target, known)}")


def _check_targets(network: PreTrainedModel) -> None:
    """Refuse layers that cannot be folded or that training does not call: their adapters would be lost in silence."""
    ends = {id(network.get_input_embeddings()), id(network.get_output_embeddings())}
    for name, module in network.named_modules():
        base = getattr(module, "base_layer", None)
        if base is not None and (id(module) in ends or not isinstance(base, torch.nn.Linear | Conv1D)):
            raise StageError(
                f"adapter.targets: {name} ({type(base).__name__}) takes no adapter here, expected linear layers inside "
                "the decoder's layers; name them, such as [q_proj, v_proj]"
            )


def transposed_layers(network: PreTrainedModel) -> set[str]:
    """Names of layers whose weight is [inputs, outputs], as GPT-2 has them."""
    named = network.named_modules()
    return {
        name.removesuffix(".base_layer")
        for name, module in named
        if isinstance(module, Conv1D) or getattr(module, "transposed", False)
    }


def folded(weights: dict[str, Tensor], config: AdapterConfig, transposed: Set[str] = frozenset()) -> dict[str, Tensor]:
    """Weights under their names in the model without adapters: W + alpha / rank B A, computed in float32.

    `transposed`: the layers of `transposed_layers`.

    >>> config = AdapterConfig(rank=1, alpha=2.0)
    >>> parts = {"q.base_layer.weight": torch.zeros(1, 2), "norm.weight": torch.ones(1)}
    >>> parts |= {"q.lora_A.solar.weight": torch.tensor([[1.0, 3.0]]), "q.lora_B.solar.weight": torch.tensor([[0.5]])}
    >>> folded(parts, config)
    {'q.weight': tensor([[1., 3.]]), 'norm.weight': tensor([1.])}
    """
    plain = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        if not name.endswith(".base_layer.weight"):
            plain[name.replace(".base_layer.", ".")] = weight
            continue
        place = name.removesuffix(".base_layer.weight")
        down, up = (weights[f"{place}.lora_{part}.{NAME}.weight"].float() for part in "AB")
        change = (config.alpha / config.rank * (up @ down)).to(weight.device)
        if place in transposed:
            change = change.T
        plain[f"{place}.weight"] = (weight.float() + change).to(weight.dtype)
    return plain
