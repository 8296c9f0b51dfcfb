"""Turn a quantised model folder into plain floats, as far as `transformers` can: `python -m solar.grow convert`."""

import inspect
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer

from solar.errors import StageError, one_line
from solar.growth.process import answer
from solar.network.folder import check_report, quiet, read_config, refused_in_one_line
from solar.network.loading import load_model, model_class
from solar.weights.folder import CONFIG_FILE, ModelFolder, open_folder
from solar.weights.header import FLOAT_DTYPES
from solar.weights.json_file import write_json
from solar.weights.publish import published
from solar.weights.quantised import quantisation, without_quantisation
from solar.weights.travelling import copy_travelling_files


def dequantise(source: Path, target: Path) -> dict[str, int]:
    """Write the new folder `target` in the format of floats that config.json names, and no quantisation.

    Tensors that the source stores as floats keep their format and bytes. The whole model is held in memory.

    Raises:
        SolarError: `transformers` cannot dequantise the method, or lacks a package for it; or the folder is damaged.
    """
    model = open_folder(source)
    method = str(quantisation(model.config))
    config = read_config(source, quantised=True)
    with published(target, [source]) as partial:
        network = _load(model, config, method)
        with quiet():
            network.save_pretrained(partial, state_dict=_with_stored_floats(network.state_dict(), model))
        plain = without_quantisation(model.config) | {"dtype": str(network.dtype).removeprefix("torch.")}
        plain.pop("torch_dtype", None)
        write_json(partial / CONFIG_FILE, plain)
        copy_travelling_files(source, partial)
        load_model(partial, device="meta")  # raises for names and shapes that are not the plain model's
        written = open_folder(partial)
        for path in written.files:  # safetensors leaves them unreadable for everyone else
            shutil.copymode(partial / CONFIG_FILE, path)
    return {"tensors": len(written.tensors), "bytes": written.nbytes}


def _load(model: ModelFolder, config: PreTrainedConfig, method: str) -> PreTrainedModel:
    options = {"config": config, "dtype": "auto", "output_loading_info": True}
    checks = {"trust_remote_code": False, "local_files_only": True, "use_safetensors": True}
    _ask_for_floats(model, config, method)
    try:
        with refused_in_one_line(model.folder), quiet():
            network, report = model_class(config).from_pretrained(model.folder, **options, **checks)
            check_report(model.folder, report)
            network = network.dequantize() if getattr(network, "hf_quantizer", None) is not None else network
    except StageError as error:
        if isinstance(error.__cause__, ImportError):
            raise StageError(
                f"{model.folder}: quantised with {method}, and a package for it is not installed "
                f"({one_line(error.__cause__)}); install that package, or fetch the original model"
            ) from error
        raise
    plain: PreTrainedModel = network
    # Saving reverses the conversions of loading, which here include those of the quantisation: keep the family's alone.
    plain._weight_conversions = get_model_conversion_mapping(plain, add_legacy=False)
    return plain


def _ask_for_floats(model: ModelFolder, config: PreTrainedConfig, method: str) -> None:
    """Set `dequantize` in the quantisation's settings where they have it. Raises `StageError` for other methods."""
    settings_class = AUTO_QUANTIZATION_CONFIG_MAPPING.get(method)
    quantizer = AUTO_QUANTIZER_MAPPING.get(method)
    if method == "bitsandbytes":
        return
    if settings_class is not None and "dequantize" in inspect.signature(settings_class.__init__).parameters:
        for part in (config, config.get_text_config(decoder=True)):
            if isinstance(settings := getattr(part, "quantization_config", None), dict):
                settings["dequantize"] = True
        return
    if quantizer is None or quantizer._dequantize is HfQuantizer._dequantize:
        raise StageError(
            f"{model.folder / CONFIG_FILE}: quantised with {method}, which transformers cannot dequantise; "
            "fetch the original model"
        )


def _with_stored_floats(state: dict[str, Tensor], model: ModelFolder) -> dict[str, Tensor]:
    """The same weights; those that the files hold as floats are taken from the files, in their own format."""
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stored = model.tensors.get(name)
        if stored is None or stored.dtype not in FLOAT_DTYPES or stored.shape != tuple(tensor.shape):
            plain[name] = tensor
            continue
        with safe_open(stored.path, framework="pt") as file:
            plain[name] = file.get_tensor(name)
    return plain


def _work(request: dict[str, Any]) -> dict[str, int]:
    torch.set_grad_enabled(False)
    return dequantise(Path(request["source"]), Path(request["target"]))


if __name__ == "__main__":
    sys.exit(answer(_work))
