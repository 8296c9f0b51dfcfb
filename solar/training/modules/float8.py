"""Matrix products of the layers in float8 (torchao), on GPUs that multiply float8 numbers."""

from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedModel

from solar.config.root import TrainerConfig
from solar.errors import StageError
from solar.training.distributed.sharding import decoder_layers

CAPABILITY = (8, 9)
"""The first compute capability whose matrix units take float8."""
_MULTIPLE = 16
"""The kernel takes matrices whose sides are multiples of this number; torchao pads the number of tokens."""
_ROUTERS = ("gate", "router")


def compute_in_float8(network: PreTrainedModel, *, emulate: bool = False) -> None:
    """Let the linear layers of the decoder's layers multiply in float8, in place; weights and their names stay.

    Inputs have a scale for each token and weights one for each output, so that no document changes the rounding of
    another document. Output layer, embeddings and routers stay as they are. `emulate`: round to float8 and multiply in
    float32, on any device.

    Raises:
        StageError: torchao is not installed, or no layer has sides that float8 takes.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError:
        raise StageError("float8: needs torchao, which is not installed; pip install 'solar[float8]'") from None
    config = replace(Float8LinearConfig.from_recipe_name("rowwise"), pad_inner_dim=True, emulate=emulate)
    layers = decoder_layers(network)
    if not any(_is_taken(module, name) for layer in layers for name, module in layer.named_modules()):
        raise StageError(f"float8: no linear layer of the model has sides that are multiples of {_MULTIPLE}; remove it")
    for layer in layers:
        convert_to_float8_training(layer, module_filter_fn=_is_taken, config=config)


def _is_taken(module: nn.Module, name: str) -> bool:
    if not isinstance(module, nn.Linear) or name.rpartition(".")[2] in _ROUTERS:
        return False
    return module.in_features % _MULTIPLE == 0 and module.out_features % _MULTIPLE == 0


def check_float8(trainer: TrainerConfig) -> None:
    """Raises `StageError` where the trainer's devices do not multiply float8 numbers."""
    if trainer.tensor_parallel > 1:
        raise StageError(f"float8: found with trainer.tensor_parallel {trainer.tensor_parallel}, expected 1")
    if trainer.accelerator != "gpu":
        raise StageError(f"float8: found trainer.accelerator {trainer.accelerator}, expected gpu; remove float8")
    found = torch.cuda.get_device_capability()
    if found < CAPABILITY:
        names = [".".join(map(str, capability)) for capability in (found, CAPABILITY)]
        raise StageError(
            f"float8: found a GPU of compute capability {names[0]}, expected at least {names[1]}; remove float8"
        )
