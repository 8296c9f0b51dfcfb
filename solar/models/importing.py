"""Import a pretrained model from a folder, a GGUF file, an installed package or a hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solar.config.model import ArchitectureConfig, ImportModelConfig
from solar.errors import StageError
from solar.models import gguf_file, llama
from solar.models.checks import check_counts, check_sizes, check_tensors
from solar.models.sources import locate
from solar.weights.agreement import check_layer_count, check_tied_head
from solar.weights.folder import CONFIG_FILE, INDEX_FILE, ModelFolder, open_folder
from solar.weights.header import DTYPE_OF, StoredTensor
from solar.weights.json_file import write_json
from solar.weights.quantised import refuse_quantised
from solar.weights.travelling import copy_or_link, copy_travelling_files

if TYPE_CHECKING:
    from solar.weights.numbers import Wide


def import_model(config: ImportModelConfig, output: Path) -> dict[str, Any]:
    """Leave a Hugging Face folder in `output`; the weights keep their bytes unless `dtype` is set.

    Raises:
        ConfigError: the source is missing, or is not what the configuration expects.
        ArtifactError: the source is damaged, or its numbers do not fit `dtype`.
        StageError: the source cannot be used, or not without running its code.
    """
    source = locate(config)
    output.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".gguf":
        settings = gguf_file.convert(source, config.dtype or "float32", output)
        if config.expects is not None:
            check_sizes(settings, config.expects, source)
    else:
        _import_folder(open_folder(source), config, output)
    imported = open_folder(output)
    return {"parameters": imported.parameters, "layers": imported.config.get("num_hidden_layers")}


def _import_folder(source: ModelFolder, config: ImportModelConfig, output: Path) -> None:
    settings = source.config
    check_layer_count(source)
    check_tied_head(source)
    if config.architecture == "llama":
        settings = as_llama(settings, config.expects, source.folder)
    if config.expects is not None:
        check_sizes(settings, config.expects, source.folder)
    check_tensors(settings, source)
    copy_travelling_files(source.folder, output)
    if config.dtype is None:
        # A linked file must never change; only a hub's cache promises that.
        for path in source.files:
            copy_or_link(path, output / path.name, link=config.hub is not None)
        if (source.folder / INDEX_FILE).exists():
            copy_or_link(source.folder / INDEX_FILE, output / INDEX_FILE, link=False)
    else:
        refuse_quantised(source.folder, settings)
        settings = {key: value for key, value in settings.items() if key != "torch_dtype"} | {"dtype": config.dtype}
        _rewrite(source, config.dtype, output)
    if settings == source.config:
        copy_or_link(source.folder / CONFIG_FILE, output / CONFIG_FILE, link=False)
    else:
        write_json(output / CONFIG_FILE, settings)


def as_llama(settings: dict[str, Any], expects: ArchitectureConfig | None, source: Path) -> dict[str, Any]:
    """A Mistral `config.json` as a Llama's: the same tensors, the same function while the window holds all positions.

    `max_position_embeddings` becomes what `expects` gives, or else the window.

    Raises:
        StageError: the model is neither, or would see more positions than its window.
    """
    if settings.get("model_type") not in llama.LLAMA_SHAPED:
        raise StageError(
            f"{source}: model_type is {settings.get('model_type')}, whose weights are not a Llama's; "
            "drop `architecture: llama`"
        )
    check_counts(settings, source)
    window = settings.get("sliding_window")
    most = min(settings["max_position_embeddings"], window or settings["max_position_embeddings"])
    positions = most if expects is None else expects.max_position_embeddings
    if positions > most:
        raise StageError(
            f"{source}: equals a Llama only up to {most} positions, expects.max_position_embeddings is {positions}"
        )
    others = {key: value for key, value in settings.items() if key != "sliding_window"}
    changed = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": positions}
    return {"attention_bias": False, "mlp_bias": False} | others | changed


def _rewrite(source: ModelFolder, dtype: str, output: Path) -> None:
    """Cast every shard under its own name; the index gets the new size."""
    from solar.weights.folder import write_index
    from solar.weights.values import write_tensors

    total = 0
    for path in source.files:
        tensors = [tensor for tensor in source.tensors.values() if tensor.path == path]
        dtypes = {tensor.name: DTYPE_OF[dtype] if source.may_be_cast(tensor) else tensor.dtype for tensor in tensors}
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        total += write_tensors(output / path.name, dtypes, shapes, _values(tensors, source))
    if (source.folder / INDEX_FILE).exists():
        write_index(output, {name: tensor.path.name for name, tensor in source.tensors.items()}, total)


def _values(tensors: list[StoredTensor], source: ModelFolder) -> "Iterator[Wide | bytes]":
    from solar.weights.numbers import decode
    from solar.weights.values import read_bytes

    for tensor in tensors:
        raw = read_bytes(tensor, 0, tensor.parameters)
        yield decode(raw, tensor.dtype) if source.may_be_cast(tensor) else raw
