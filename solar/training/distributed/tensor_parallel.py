"""Layers split over devices that compute one batch together, as the plan of the model's family in transformers says."""

import re
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from transformers import PreTrainedModel

from solar.errors import StageError

STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "colwise_rep": lambda: ColwiseParallel(output_layouts=Replicate()),
    "rowwise_split_input": lambda: RowwiseParallel(input_layouts=Replicate()),
    "rowwise_rep": lambda: RowwiseParallel(input_layouts=Replicate()),
}
"""Style names of transformers' plans -> torch's classes. `colwise` splits a layer's outputs, `rowwise` its inputs."""
SEES_OWN_HEADS = "replicated_with_grad_allreduce"
"""Style of weights that every device holds and applies only to its own heads: their gradients are summed."""

STAYS_WHOLE = ("embedding_rowwise", "embedding_colwise", "replicate")
"""Styles of weights that every device holds whole; an embedding may also be the output layer."""


def split(network: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Split the layers that the plan names, and mark all other weights as equal on all devices of `mesh`.

    Raises `StageError` for a family without a plan, a style that is unknown here, or a size that cannot be cut evenly.
    """
    styles = _styles(network)
    modules = dict(network.named_modules())
    for name, style in styles.items():
        if style in STYLES:
            _check_sizes(network, name, modules[name], style, mesh.size())
    replicas: dict[int, nn.Parameter] = {}
    for name, module in modules.items():
        if styles.get(name) not in STYLES:
            _replicate(module, mesh, styles.get(name) == SEES_OWN_HEADS, replicas)
    parallelize_module(network, mesh, {name: STYLES[style]() for name, style in styles.items() if style in STYLES})


def _styles(network: PreTrainedModel) -> dict[str, str]:
    """Style by module name. Training does not call the output layer, so the plan's style for it has no effect."""
    plan = {f"{network.base_model_prefix}.{name}": style for name, style in (network.base_model.tp_plan or {}).items()}
    family = network.config.model_type
    if not plan:
        raise StageError(f"trainer.tensor_parallel: transformers has no plan for model type {family}; set it to 1")
    style_of = {}
    for name, _ in network.named_modules():
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        if style is not None and style not in STAYS_WHOLE:
            style_of[name] = style
    strange = sorted(set(plan.values()) - {*STYLES, SEES_OWN_HEADS, *STAYS_WHOLE})
    if strange or not style_of:
        what = f"has styles that are not supported ({', '.join(strange)})" if strange else "names none of its layers"
        raise StageError(f"trainer.tensor_parallel: the plan for model type {family} {what}; set it to 1")
    return style_of


def _check_sizes(network: PreTrainedModel, name: str, module: nn.Module, style: str, parts: int) -> None:
    size = module.out_features if style.startswith("colwise") else module.in_features
    config = network.config.get_text_config()
    heads = {key: getattr(config, key, None) or parts for key in ("num_attention_heads", "num_key_value_heads")}
    for what, found in {name: size, **heads}.items():
        if not isinstance(found, int) or found % parts:
            raise StageError(
                f"trainer.tensor_parallel: {what} is {found}, expected a multiple of {parts} to be cut into equal parts"
            )


def _replicate(module: nn.Module, mesh: DeviceMesh, partial: bool, replicas: dict[int, nn.Parameter]) -> None:
    """Make a module's own parameters tensors of the mesh, whole on each device; the module computes with local copies.

    `replicas` keeps tied parameters tied.
    """
    for name, parameter in list(module.named_parameters(recurse=False)):
        if id(parameter) not in replicas:
            whole = distribute_tensor(parameter.data, mesh, [Replicate()], src_data_rank=None)
            replicas[id(parameter)] = nn.Parameter(whole, requires_grad=parameter.requires_grad)
            replicas[id(replicas[id(parameter)])] = replicas[id(parameter)]
        setattr(module, name, replicas[id(parameter)])
    if not module._parameters:
        return
    forward, gradient = module.forward, [Partial() if partial else Replicate()]

    def with_local_parameters(*arguments: Any, **keywords: Any) -> Any:
        held: dict[str, Any] = dict(module._parameters)
        local: dict[str, Any] = {
            n: p.to_local(grad_placements=gradient) for n, p in held.items() if isinstance(p, DTensor)
        }
        module._parameters.update(local)
        try:
            return forward(*arguments, **keywords)
        finally:
            module._parameters.update(held)

    module.forward = with_local_parameters
