"""The trained weights as a Hugging Face folder: the base's tensors, each in the number format the base stores it in."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from solar.errors import StageError
from solar.growth.unmaterialized import is_unmaterialized, weights
from solar.network.adapter import NAME as ADAPTER_NAME
from solar.network.folder import quiet
from solar.training.checkpoint.tensor_file import DTYPES_BY_NAME, whole
from solar.weights.folder import CONFIG_FILE, open_folder
from solar.weights.travelling import TRAVELLING, copy_travelling_files

SHARD_BYTES = 5 * 10**9
"""Largest size of a weights file."""


def save_model(
    network: PreTrainedModel,
    weights: dict[str, Tensor],
    dtypes: Mapping[str, torch.dtype],
    source: Path,
    target: Path,
) -> None:
    """Write `weights` (names as in `network`) to `target`, with what travels of `source` beside them.

    `dtypes` are those of `stored_dtypes`. The folder appears under its name only when it is complete. `weights` is
    emptied, so that a tensor's memory is free as soon as the tensor is in its stored number format.

    Raises:
        StageError: a weight is too large for the number format.
    """
    building = target.with_name(f"{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    state = revert_weight_conversion(network, dict(weights))  # names and blocks as the base's files have them
    weights.clear()
    usual = _usual_dtype(state, dtypes)
    state = {name: _stored(name, state.pop(name), dtypes.get(name, usual)) for name in list(state)}
    with quiet():
        network.save_pretrained(building, state_dict=state, max_shard_size=SHARD_BYTES, save_original_format=False)
    for path in building.glob("*.safetensors"):
        shutil.copymode(building / CONFIG_FILE, path)  # safetensors makes its files unreadable for all but the owner
    copy_travelling_files(source, building, (CONFIG_FILE, *TRAVELLING))
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def _stored(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    stored = weight.detach().to(dtype)
    if dtype == torch.float16 and stored.isinf().any() and weight.isfinite().all():
        raise StageError(
            f"{name}: {weight.abs().max():.3g} found after training, too large for the base's float16; import the base "
            "with dtype: bfloat16"
        )
    return stored


def _usual_dtype(state: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> torch.dtype:
    """The number format of a tensor that the base does not store by name: that of the largest stored tensor."""
    stored = [name for name in state if name in dtypes]
    largest = max(stored, key=lambda name: (state[name].numel(), name)) if stored else next(iter(dtypes))
    return dtypes[largest]


def stored_dtypes(model_dir: Path) -> dict[str, torch.dtype]:
    """Number format of each tensor of a model folder, by the tensor's name in the files."""
    if is_unmaterialized(model_dir):
        return {name: tensor.dtype for name, tensor in weights(model_dir).items()}
    tensors = open_folder(model_dir).tensors
    return {name: DTYPES_BY_NAME[stored.dtype] for name, stored in tensors.items()}


def without_tied(network: PreTrainedModel, weights: dict[str, Tensor], stored: Collection[str]) -> dict[str, Tensor]:
    """Each tied parameter once: under the name that the base stores it by, else under its first name."""
    names_of: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
    left_out: set[str] = set()
    for names in names_of.values():
        present = [name for name in names if name in weights]
        first = min(present, key=lambda name: name not in stored, default=None)
        left_out.update(name for name in present if name != first)
    return {name: weight for name, weight in weights.items() if name not in left_out}


def gathered(weights: dict[str, Tensor], dtypes: Mapping[str, torch.dtype], keep: bool) -> dict[str, Tensor]:
    """Sharded weights, whole and in their stored number format on the host of the process that is to `keep` them.

    One tensor at a time, so that no device holds more than one whole tensor. All processes call this.
    """
    result = {}
    for name in list(weights):
        weight = weights.pop(name).detach()
        if isinstance(weight, DTensor):
            weight = whole(weight)
            stored = dtypes.get(name.replace(".base_layer.", "."), weight.dtype)
            weight = weight.to("cpu", stored) if keep else weight
        if keep:
            result[name] = weight
    return result


def save_adapter(network: PreTrainedModel, weights: Mapping[str, Tensor], target: Path) -> None:
    """Write the adapter alone as peft reads it: `PeftModel.from_pretrained(base, target)`."""
    suffix = f".{ADAPTER_NAME}.weight"
    parts = {
        f"base_model.model.{name.removesuffix(suffix)}.weight": weight.detach().cpu().contiguous()
        for name, weight in weights.items()
        if ".lora_" in name
    }
    shutil.rmtree(target, ignore_errors=True)
    network.peft_config[ADAPTER_NAME].save_pretrained(target)
    save_file(parts, target / "adapter_model.safetensors", metadata={"format": "pt"})
    shutil.copymode(target / "adapter_config.json", target / "adapter_model.safetensors")
