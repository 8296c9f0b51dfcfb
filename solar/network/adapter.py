"""Low-rank adapters (LoRA, arXiv 2106.09685): trained beside frozen weights, and folded into them in the end."""

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
    wanted = LoraConfig(**sizes, target_modules=targets)
    try:
        inject_adapter_in_model(wanted, network, adapter_name=NAME)
    except ValueError as error:
        raise StageError(f"adapter.targets: found {', '.join(config.targets) or 'none'}; {one_line(error)}") from None
    _check_targets(network)


def _check_names(network: PreTrainedModel, targets: Sequence[str]) -> None:
    """peft refuses only if it finds none of them."""
    linear = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    head = network.get_output_embeddings()
    known = sorted({name.rpartition(".")[2] for name in linear if network.get_submodule(name) is not head})
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name, _ in network.named_modules()):
            raise StageError(f"adapter.targets: found {target}, which is no layer of the model{hint(target, known)}")


def _check_targets(network: PreTrainedModel) -> None:
    """Refuse what cannot be folded, or is not called in training: it would be left out of the model without a word."""
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
    return {name.removesuffix(".base_layer") for name, module in named if isinstance(module, Conv1D)}


def folded(weights: dict[str, Tensor], config: AdapterConfig, transposed: Set[str] = frozenset()) -> dict[str, Tensor]:
    """Weights under the names they had before there were adapters: W + alpha / rank B A, computed in float32.

    `transposed`: the layers of `transposed_layers`.

    >>> config = AdapterConfig(rank=1, alpha=2.0)
    >>> parts = {"q.base_layer.weight": torch.zeros(1, 2), "norm.weight": torch.ones(1)}
    >>> parts |= {"q.lora_A.solar.weight": torch.tensor([[1.0, 3.0]]), "q.lora_B.solar.weight": torch.tensor([[0.5]])}
    >>> folded(parts, config)
    {'q.weight': tensor([[1., 3.]]), 'norm.weight': tensor([1.])}
    """
    found = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        if not name.endswith(".base_layer.weight"):
            found[name.replace(".base_layer.", ".")] = weight
            continue
        place = name.removesuffix(".base_layer.weight")
        down, up = (weights[f"{place}.lora_{part}.{NAME}.weight"].float() for part in "AB")
        change = config.alpha / config.rank * (up @ down)
        if place in transposed:
            change = change.T
        found[f"{place}.weight"] = (weight.float() + change).to(weight.dtype)
    return found
