"""The only door through which a model folder becomes a network.

`load_network` is for training, `load_decoder` for whoever scores or writes text, and `load_model` for diagnosis, which
takes any class of `transformers`. All three read safetensors alone, run no code of the folder, and refuse weights that
are quantised, missing, unexpected or of another shape, by the tensor's name.
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from solar.config.training import Precision
from solar.errors import StageError
from solar.growth.unmaterialized import is_unmaterialized, weights
from solar.network.attention import NAME as SEGMENT_ATTENTION
from solar.network.balance import balance_weight
from solar.network.decoder import Decoder
from solar.network.folder import check_files, check_report, quiet, read_config, read_text_config, refused_in_one_line
from solar.network.head import check_head
from solar.network.isolation import has_sinks, segments_hold, takes_segments

DTYPES = {
    Precision.fp32: torch.float32,
    Precision.bf16_mixed: torch.float32,
    Precision.bf16_true: torch.bfloat16,
}
"""The number format weights are trained in."""
MOST_DRAWN = 4
"""A model may have this many times the weights of its files before it is refused without being loaded."""
WINDOW_KEYS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "sliding_window_size")


def load_network(model_dir: Path, precision: Precision) -> PreTrainedModel:
    """A decoder of text in training mode. Raises `SolarError` if the folder or the architecture cannot be trained.

    Training mode: layers with dropout drop.
    """
    config = read_text_config(model_dir)
    network = _load_decoder(model_dir, config, DTYPES[precision])
    network.config.use_cache = False
    if getattr(config, "output_router_logits", False) and not balance_weight(network):
        omission = "output_router_logits asks for a load-balancing loss of the experts, which training here leaves out"
        warnings.warn(f"{model_dir}/config.json: {omission}", stacklevel=2)
    network.train()
    return network


def load_decoder(folder: Path, device: str = "cpu") -> Decoder:
    """A decoder in evaluation mode without gradients, its weights in the number format they are stored in."""
    config = read_config(folder)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise StageError(f"{folder}/config.json: model type {config.model_type} found, expected a language model")
    network = _load_decoder(folder, config, "auto")
    return Decoder(network.to(device).eval().requires_grad_(False)).eval()


def load_model(
    folder: Path, dtype: torch.dtype = torch.float32, window: int | None = None, device: str = "cpu"
) -> PreTrainedModel:
    """A model of whatever class config.json names, in evaluation mode, with eager attention.

    `window`: attention windows are cut to this many tokens, so that short texts show which layers have one, except
    where weights have the window's size. `device`: `meta` keeps no weight, so that a model of any size fits.
    """
    config = read_config(folder)
    if getattr(config, "rescale_every", 0):
        config.rescale_every = 0  # rwkv halves the stream at fixed depths for half precision; growth moves its layers
    if window is not None:
        _shorten_windows(config.get_text_config(decoder=True), window)
    options = {"config": config, "dtype": dtype, "attn_implementation": "eager"}
    options |= {"device_map": device} if device != "cpu" else {}
    network, report = _from_folder(folder, model_class(config), options)
    if window is not None and report.get("mismatched_keys"):
        return load_model(folder, dtype, device=device)
    check_report(folder, report)
    return network.eval()


def model_class(config: PreTrainedConfig) -> Any:
    """The class that config.json names, if `transformers` has it; else its automatic causal language model."""
    names = config.architectures or [""]
    named = getattr(transformers, names[0], None) if isinstance(names[0], str) else None
    is_model = isinstance(named, type) and issubclass(named, PreTrainedModel)
    return named if is_model else AutoModelForCausalLM


def describe(network: nn.Module) -> dict[str, Any]:
    """Parameters in all and those that are trained."""
    parameters = list(network.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }


def _load_decoder(folder: Path, config: PreTrainedConfig, dtype: torch.dtype | str) -> PreTrainedModel:
    """A network whose documents can be kept apart and whose head is known, in evaluation mode.

    A family that leaks from document to document in one row keeps its own attention: see `solar.network.isolation`.
    """
    attention = {"attn_implementation": SEGMENT_ATTENTION} if takes_segments(config) else {}
    network, report = _from_folder(folder, AutoModelForCausalLM, {"config": config, "dtype": dtype, **attention})
    check_report(folder, report)
    if attention and (has_sinks(network) or not segments_hold(network)):
        with quiet():
            network.set_attn_implementation("eager" if has_sinks(network) else "sdpa")
    check_head(network, folder)
    return network


def _from_folder(folder: Path, auto_class: Any, options: dict[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """`from_pretrained`, and its report of missing, unexpected and mismatched weights.

    The folder may hold a plan of growth instead of weights; they are then built from the base's files.
    """
    options = {**options, "output_loading_info": True, "ignore_mismatched_sizes": True}
    built = weights(folder) if is_unmaterialized(folder) else None
    stored = check_files(folder) if built is None else sum(tensor.numel() for tensor in built.values())
    with refused_in_one_line(folder), quiet():
        with torch.device("meta"):
            empty = _maker(auto_class)(copy.deepcopy(options["config"]))
        if (
            described := empty.num_parameters()
        ) > MOST_DRAWN * stored:  # transformers would draw them before it reports
            raise StageError(f"{folder}: config.json describes {described:,} weights, but the files hold {stored:,}")
        if built is None:
            checks = {"trust_remote_code": False, "local_files_only": True, "use_safetensors": True}
            loaded: tuple[PreTrainedModel, dict[str, Any]] = auto_class.from_pretrained(folder, **options, **checks)
            return loaded
        # An automatic class would look for the name of the class in a folder.
        network, report = type(empty).from_pretrained(None, state_dict=built, **options)
    _separate_twins(network)
    return network, report


def _separate_twins(network: nn.Module) -> None:
    """Give each parameter memory of its own: copies of a layer that share a mapped file would be trained as one."""
    seen: set[int] = set()
    for parameter in network.parameters():
        if parameter.data_ptr() in seen:
            parameter.data = parameter.data.clone()
        seen.add(parameter.data_ptr())


def _shorten_windows(text_config: Any, window: int) -> None:
    for key in WINDOW_KEYS:
        if isinstance(getattr(text_config, key, None), int):
            setattr(text_config, key, min(getattr(text_config, key), window))


def _maker(auto_class: Any) -> Any:
    """Automatic classes and the classes of models name the same function differently."""
    return auto_class.from_config if hasattr(auto_class, "from_config") else auto_class._from_config
