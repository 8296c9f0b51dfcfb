"""A network of which no process holds more than its shard: made without memory, filled straight from safetensors."""

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import AutoModelForCausalLM, PreTrainedModel

from solar.config.training import Precision
from solar.errors import StageError, one_line
from solar.growth.unmaterialized import is_unmaterialized
from solar.network.attention import NAME as SEGMENT_ATTENTION
from solar.network.folder import check_files, quiet, read_text_config
from solar.network.head import check_weights_of_head
from solar.network.isolation import has_sinks, takes_segments
from solar.network.loading import DTYPES
from solar.weights.folder import open_folder


def empty_network(model_dir: Path, precision: Precision) -> PreTrainedModel:
    """The network of a model folder on the meta device: names and shapes, no numbers."""
    config = read_text_config(model_dir)
    if not takes_segments(config):
        raise StageError(
            f"{model_dir}: documents of model type {config.model_type} are run one by one, which processes that share "
            "layers cannot do in step; expected trainer.strategy single or ddp"
        )
    with torch.device("meta"), quiet():
        network = AutoModelForCausalLM.from_config(
            config, dtype=DTYPES[precision], attn_implementation=SEGMENT_ATTENTION, trust_remote_code=False
        )
    check_weights_of_head(network, model_dir)
    if has_sinks(network):
        raise StageError(f"{model_dir}: attention sinks are trained with trainer.strategy single or ddp only")
    network.config.use_cache = False
    return network.train()


def fill(network: PreTrainedModel, model_dir: Path, device: torch.device) -> None:
    """Give every parameter its numbers, each process reading only its own shards.

    Raises `StageError` for a parameter that the files do not hold under its own name and shape.
    """
    if is_unmaterialized(model_dir):
        raise StageError(f"{model_dir}: no weights to read in shards; grow with materialize: true, or use trainer ddp")
    check_files(model_dir)
    stored = open_folder(model_dir).tensors
    buffers = _computed_buffers(network, stored=stored.keys())
    network.to_empty(device=device)
    network.tie_weights()
    for name, parameter in network.named_parameters():
        if name not in stored:
            raise StageError(f"{model_dir}: no tensor {name}; this model cannot be loaded in shards, use trainer ddp")
        if stored[name].shape != tuple(parameter.shape):
            shapes = f"found {list(stored[name].shape)}, expected {list(parameter.shape)}"
            raise StageError(f"{stored[name].path}: {name}: {shapes}")
        with safe_open(stored[name].path, framework="pt") as file:  # type: ignore[no-untyped-call]
            _copy_part(parameter, file.get_slice(name))
    for name, buffer in network.named_buffers():
        if name not in stored:
            buffer.copy_(buffers[name])
            continue
        with safe_open(stored[name].path, framework="pt") as file:  # type: ignore[no-untyped-call]
            buffer.copy_(file.get_tensor(name))


@torch.no_grad()
def _copy_part(parameter: nn.Parameter, stored: Any) -> None:
    """The part of a tensor on disk that belongs here."""
    if not isinstance(parameter, DTensor):
        parameter.copy_(stored[:])
        return
    mesh, local = parameter.device_mesh, parameter.to_local()
    shape, offset = compute_local_shape_and_global_offset(parameter.shape, mesh, parameter.placements)
    if local.numel():
        local.copy_(stored[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))])


def _computed_buffers(network: PreTrainedModel, stored: Set[str]) -> dict[str, Tensor]:
    """What the network computes instead of loading (rotary frequencies), from a copy of it that is nearly empty."""
    config = network.config.to_dict()
    count = network.config.num_hidden_layers
    by_layer = {key: values for key, values in config.items() if isinstance(values, list) and len(values) == count}
    first_of_kind = {
        json.dumps([values[layer] for values in by_layer.values()]): layer for layer in reversed(range(count))
    }
    examples = sorted(first_of_kind.values())
    fewer = {key: [values[layer] for layer in examples] for key, values in by_layer.items()}
    few = config | fewer | {"vocab_size": 8, "pad_token_id": 0, "num_hidden_layers": len(examples)}
    try:
        small = AutoModelForCausalLM.from_config(type(network.config).from_dict(few))
    except (ValueError, StrictDataclassError) as error:  # its config gives the kinds of layers in a way of its own
        reason = f"{type(network).__name__}: a small sibling cannot be made ({one_line(error)}); use trainer ddp"
        raise StageError(reason) from None
    computed = dict(small.named_buffers())
    missing = [name for name, _ in network.named_buffers() if name not in computed and name not in stored]
    if missing:
        raise StageError(f"{type(network).__name__}: {missing[0]} cannot be computed alone; use trainer ddp")
    return computed
