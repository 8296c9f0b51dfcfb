"""A model folder before its weights are loaded: what is refused, and how a library's error becomes one line."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from solar.errors import StageError, library_errors
from solar.weights import folder as weights
from solar.weights.agreement import check_tied_head
from solar.weights.folder import CONFIG_FILE
from solar.weights.json_file import huge_counts
from solar.weights.quantised import refuse_packed, refuse_quantised

HARMLESS = re.compile(r"rotary_emb\.inv_freq$|\.(attn|attention)\.(masked_)?bias$")
"""Buffers that old checkpoints store and every network computes for itself."""


LEAST_COUNT = 1000
"""Layers or experts that a model may have, however few tensors its files hold: they may be stored stacked."""


def read_config(folder: Path, quantised: bool = False) -> PreTrainedConfig:
    """The configuration of a model folder, read without running code or asking the network.

    Raises `SolarError` for an adapter, a config.json that `transformers` cannot read, and, unless `quantised`, for a
    quantised model.
    """
    settings = weights.read_config(folder)
    if (folder / weights.ADAPTER_FILE).exists():
        raise StageError(
            f"{folder / weights.ADAPTER_FILE}: lies beside whole weights, and transformers would load the "
            "adapter's base; remove the file"
        )
    if not quantised:
        refuse_quantised(folder, settings)
    with refused_in_one_line(folder):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return config


def read_text_config(folder: Path) -> PreTrainedConfig:
    """Like `read_config`. Raises `StageError` for a model that does more than read and write text, too."""
    config = read_config(folder)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.get_text_config(decoder=True) is not config:
        raise StageError(
            f"{folder}/{CONFIG_FILE}: model type {config.model_type} found, expected a decoder of text alone; solar "
            "grows and merges models that also see or hear, and trains none of them"
        )
    return config


def check_files(folder: Path) -> int:
    """The number of stored parameters.

    Raises `ArtifactError` unless the weights are safetensors files of plain numbers, each tensor once.
    """
    model = weights.open_folder(folder)
    most = max(LEAST_COUNT, len(model.tensors))
    for key, count in huge_counts(
        model.config, most
    ):  # transformers would build as many modules before it reads a file
        raise StageError(
            f"{folder / CONFIG_FILE}: {key}: {count:,} found, but the files hold {len(model.tensors)} tensors"
        )
    refuse_packed(model)
    check_tied_head(model)
    return model.parameters


def check_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Raises `StageError` with the name of a weight that is missing, unexpected, or of another shape.

    `report`: what `from_pretrained` returns with `output_loading_info`.
    """
    expectations = {
        "missing_keys": "expected every weight in the files; none is drawn at random",
        "unexpected_keys": f"the model that {CONFIG_FILE} describes has no such weight",
        "mismatched_keys": f"{CONFIG_FILE} describes another shape",
    }
    for kind, expectation in expectations.items():
        names = sorted(_name(key) for key in report.get(kind) or () if not HARMLESS.search(_name(key)))
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise StageError(f"{folder}: {kind.replace('_', ' ')}: {names[0]}{others}; {expectation}")


def _name(key: Any) -> str:
    """Mismatched keys come with their two shapes."""
    return str(key[0] if isinstance(key, tuple) else key)


def refused_in_one_line(folder: Path) -> AbstractContextManager[None]:
    """Turn what a library raises about a folder into a `StageError`."""
    return library_errors(folder, "expected a whole Hugging Face model folder", StageError)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and warnings; what its loader would warn of is checked here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
