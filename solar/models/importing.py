"""A pretrained model, brought in from a folder, a GGUF file, an installed package or a hub."""

import json
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from solar.config.model import ArchitectureConfig, ImportModelConfig
from solar.errors import StageError
from solar.models import gguf_file, llama, tensors
from solar.models.checks import check_sizes, check_tensors, refuse_code
from solar.models.folder import INDEX, carry, carry_along, read_json, weight_files
from solar.models.sources import locate


def import_model(config: ImportModelConfig, output: Path) -> dict[str, Any]:
    """Leave a Hugging Face folder in `output`; bytes of the weights are untouched unless `dtype` asks otherwise.

    Raises:
        ConfigError: the source is missing, or is not what the configuration expects.
        StageError: what it holds cannot be used, or not without running its code.
    """
    source = locate(config)
    output.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".gguf":
        found = gguf_file.convert(source, config.dtype or "float32", output)
        if config.expects is not None:
            check_sizes(found, config.expects, source)
    else:
        _import_folder(source, config, output)
    counted = [tensors.read_header(path)[0] for path in weight_files(output)]
    layers = read_json(output / "config.json").get("num_hidden_layers")
    return {
        "parameters": sum(prod(entry["shape"]) for header in counted for entry in header.values()),
        "layers": layers,
    }


def _import_folder(source: Path, config: ImportModelConfig, output: Path) -> None:
    original = settings = read_json(source / "config.json")
    refuse_code(source, settings)
    files = weight_files(source)
    if config.architecture == "llama":
        settings = as_llama(settings, config.expects, source)
    if config.expects is not None:
        check_sizes(settings, config.expects, source)
    check_tensors(settings, files, source)
    carry_along(source, output)
    if config.dtype is None:
        # Only a hub's cache promises that its files never change under a second name.
        for path in files:
            carry(path, output / path.name, link=config.hub is not None)
        if (source / INDEX).exists():
            carry(source / INDEX, output / INDEX, link=False)
    else:
        settings = {key: value for key, value in settings.items() if key != "torch_dtype"} | {"dtype": config.dtype}
        _rewrite(files, config.dtype, output)
    if settings == original:
        carry(source / "config.json", output / "config.json", link=False)
    else:
        (output / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def as_llama(settings: dict[str, Any], expects: ArchitectureConfig | None, source: Path) -> dict[str, Any]:
    """A Mistral `config.json` as a Llama's: the same tensors, the same function while the window holds all positions.

    `max_position_embeddings` becomes what `expects` says, or else the window.

    Raises:
        StageError: the model is neither, or would see more positions than its window.
    """
    if settings.get("model_type") not in llama.LLAMA_SHAPED:
        raise StageError(
            f"{source}: model_type is {settings.get('model_type')}, whose weights are not a Llama's; "
            "drop `architecture: llama`"
        )
    window = settings.get("sliding_window")
    most = min(settings["max_position_embeddings"], window or settings["max_position_embeddings"])
    positions = most if expects is None else expects.max_position_embeddings
    if positions > most:
        raise StageError(
            f"{source}: holds to a Llama only up to {most} positions, expects.max_position_embeddings is {positions}"
        )
    kept = {key: value for key, value in settings.items() if key != "sliding_window"}
    changed = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": positions}
    return {"attention_bias": False, "mlp_bias": False} | kept | changed


def _rewrite(files: list[Path], dtype: str, output: Path) -> None:
    """Cast every shard; the index keeps its names and loses its old size."""
    total, where = 0, {}
    for path in files:
        header, begin = tensors.read_header(path)
        shapes = {name: entry["shape"] for name, entry in header.items()}
        for name, entry in header.items():
            if entry["dtype"] not in ("F32", "BF16", "F16"):
                raise StageError(f"{path}: {name} is {entry['dtype']}, expected F32, BF16 or F16; set dtype to null")
            where[name] = path.name
        with path.open("rb") as file:
            cast = (_read(file, begin, header[name]) for name in shapes)
            total += tensors.write(output / path.name, shapes, dtype, cast) * tensors.DTYPES[dtype][1]
    if len(files) > 1 or files[0].name != "model.safetensors":
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (output / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _read(file: BinaryIO, begin: int, entry: dict[str, Any]) -> tensors.Array:
    start, stop = entry["data_offsets"]
    file.seek(begin + start)
    return tensors.decode(file.read(stop - start), entry["dtype"])
