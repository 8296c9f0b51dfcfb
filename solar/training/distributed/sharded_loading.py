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
from solar.network.folder import quiet, read_text_config
from solar.network.head import check_weights_of_head
from solar.network.isolation import has_sinks, takes_segments
from solar.network.loading import DTYPES


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
    files = _files_by_tensor(model_dir)
    buffers = _computed_buffers(network, stored=files.keys())
    network.to_empty(device=device)
    network.tie_weights()
    for name, parameter in network.named_parameters():
        if name not in files:
            raise StageError(f"{model_dir}: no tensor {name}; this model cannot be loaded in shards, use trainer ddp")
        with safe_open(model_dir / files[name], framework="pt") as file:  # type: ignore[no-untyped-call]
            stored = file.get_slice(name)
            if tuple(stored.get_shape()) != tuple(parameter.shape):
                shapes = f"found {stored.get_shape()}, expected {list(parameter.shape)}"
                raise StageError(f"{model_dir}/{files[name]}: {name}: {shapes}")
            _copy_part(parameter, stored)
    for name, buffer in network.named_buffers():
        if name not in files:
            buffer.copy_(buffers[name])
            continue
        with safe_open(model_dir / files[name], framework="pt") as file:  # type: ignore[no-untyped-call]
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
    by_layer = {key: said for key, said in config.items() if isinstance(said, list) and len(said) == count}
    kinds = {json.dumps([said[layer] for said in by_layer.values()]): layer for layer in reversed(range(count))}
    kept = sorted(kinds.values())  # the first layer of each kind
    fewer = {key: [said[layer] for layer in kept] for key, said in by_layer.items()}
    few = config | fewer | {"vocab_size": 8, "pad_token_id": 0, "num_hidden_layers": len(kept)}
    try:
        small = AutoModelForCausalLM.from_config(type(network.config).from_dict(few))
    except (ValueError, StrictDataclassError) as error:  # its layers are told apart in a way of its own
        told = f"{type(network).__name__}: a small one cannot be made ({one_line(error)}); use trainer ddp"
        raise StageError(told) from None
    found = dict(small.named_buffers())
    missing = [name for name, _ in network.named_buffers() if name not in found and name not in stored]
    if missing:
        raise StageError(f"{type(network).__name__}: {missing[0]} cannot be computed alone; use trainer ddp")
    return found


def _files_by_tensor(model_dir: Path) -> dict[str, str]:
    """Tensor name -> file of the folder; a name with a separator is not taken for a file of it."""
    index = model_dir / "model.safetensors.index.json"
    if index.exists():
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        strange = [file for file in weight_map.values() if Path(file).name != file]
        if strange:
            raise StageError(f"{index}: found '{strange[0]}', expected the name of a file beside it")
        return weight_map
    with safe_open(model_dir / "model.safetensors", framework="pt") as file:  # type: ignore[no-untyped-call]
        return dict.fromkeys(file.keys(), "model.safetensors")
