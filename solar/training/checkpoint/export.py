"""The trained weights as a Hugging Face folder, in the number format they came in, with all that lay beside them."""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from solar.growth.unmaterialized import NOTE_FILE, is_unmaterialized, weights
from solar.network.folder import quiet
from solar.training.checkpoint.tensor_file import whole

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", NOTE_FILE)
"""What a trained model replaces; every other file of the folder travels along unchanged."""

SHARD_BYTES = 5 * 10**9
"""Size of a weights file at most."""


def save_model(network: PreTrainedModel, weights: dict[str, Tensor], source: Path, target: Path) -> None:
    """Write `weights` (names as in `network`) to `target`, everything else as it is in `source`.

    The folder appears under its name only when it is complete. `weights` is emptied, so that a tensor's memory is free
    as soon as it is in the stored number format; large models are written in shards with an index.
    """
    building = target.with_name(f"{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    dtype = stored_dtype(source)
    state = {name: weights.pop(name).detach().to(dtype) for name in list(weights)}
    with quiet():
        network.save_pretrained(building, state_dict=state, max_shard_size=SHARD_BYTES)
    for path in source.iterdir():
        if path.is_file() and not any(path.match(pattern) for pattern in WEIGHTS):
            shutil.copyfile(path, building / path.name)
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def gathered(weights: dict[str, Tensor], dtype: torch.dtype, keep: bool) -> dict[str, Tensor]:
    """Weights that are sharded, whole and in `dtype` on the host of the process that is to `keep` them.

    One at a time, so that no device holds more than one; all processes call this.
    """
    found = {}
    for name in list(weights):
        weight = weights.pop(name).detach()
        if isinstance(weight, DTensor):
            weight = whole(weight)
            weight = weight.to("cpu", dtype) if keep else weight
        if keep:
            found[name] = weight
    return found


def stored_dtype(model_dir: Path) -> torch.dtype:
    """Number format of the largest tensor of a model folder's first weights file."""
    if is_unmaterialized(model_dir):
        return max(weights(model_dir).items(), key=lambda item: (item[1].numel(), item[0]))[1].dtype
    with safe_open(min(model_dir.glob("*.safetensors")), framework="pt") as file:  # type: ignore[no-untyped-call]
        sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        largest = max(sizes, key=lambda name: (torch.Size(sizes[name]).numel(), name))
        dtype: torch.dtype = file.get_tensor(largest).dtype
    return dtype
