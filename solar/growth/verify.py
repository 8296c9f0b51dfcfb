"""Check a grown model against its base and its plan before it is published."""

import os
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from solar.errors import ArtifactError
from solar.growth.checkpoint import Checkpoint, open_checkpoint
from solar.growth.decoder import Decoder
from solar.growth.layer_config import is_per_layer
from solar.growth.plans import LayerPlan
from solar.growth.recipes import Recipe

_SAMPLE_BYTES = 4096
_SAMPLES = 8


class Verify(StrEnum):
    """How much of the result is checked."""

    none = "none"
    bytes = "bytes"
    """Read back: names, shapes, dtypes, parameters, per-layer lists, and all bytes; of large models samples."""
    load = "load"
    """All bytes instead of samples, and `transformers` loads the model without missing or unexpected keys."""
    logits = "logits"
    """`load`, and the logits equal those of the base with its layers run in the new order."""


def check_files(
    folder: Path, base: Checkpoint, decoder: Decoder, layers: LayerPlan, recipes: dict[str, Recipe], every_byte: bool
) -> None:
    """Raises `ArtifactError`, naming the tensor, where the files are not what the plan and the base say."""
    grown = open_checkpoint(folder)
    if difference := set(grown.tensors) ^ set(recipes):
        _wrong(folder, f"{min(difference)}: present in only one of plan and files")
    for name, recipe in recipes.items():
        entry = grown.tensors[name].entry
        if (entry.dtype, entry.shape) != (recipe.dtype, recipe.shape):
            _wrong(folder, f"{name}: {entry.dtype} {entry.shape} found, expected {recipe.dtype} {recipe.shape}")
    expected = expected_parameters(base, decoder, layers)
    if grown.parameters != expected:
        _wrong(folder, f"{grown.parameters} parameters found, expected {expected}")
    _check_lists(folder, grown, base, decoder, layers)
    with _Reader() as reader:
        for name, recipe in recipes.items():
            if recipe.is_copy:
                source, target = recipe.sources[0], grown.tensors[name]
                for start, stop in _parts(recipe.nbytes, every_byte):
                    expected_bytes = reader.read(source.path, source.entry.start + start, stop - start)
                    if reader.read(target.path, target.entry.start + start, stop - start) != expected_bytes:
                        _wrong(folder, f"{name}: bytes {start} to {stop} differ from {source.name} of the base")


def expected_parameters(base: Checkpoint, decoder: Decoder, layers: LayerPlan) -> int:
    """Parameters outside the layers once, and each layer's as often as it runs."""
    sizes = [sum(base.tensors[name].entry.parameters for name in names) for names in decoder.layers]
    outside = base.parameters - sum(sizes) - sum(base.tensors[name].entry.parameters for name in decoder.beyond)
    return outside + sum(sizes[source] for source in layers.sources)


def _check_lists(folder: Path, grown: Checkpoint, base: Checkpoint, decoder: Decoder, layers: LayerPlan) -> None:
    before, after = decoder.configuration(base.config), decoder.configuration(grown.config)
    for key, value in before.items():
        if is_per_layer(key, value, layers.base_layers) and key in after:
            index_list = all(isinstance(item, int) for item in after[key])
            if len(after[key]) != layers.num_hidden_layers and not index_list:
                _wrong(folder, f"{key}: {len(after[key])} layers found, expected {layers.num_hidden_layers}")


def _parts(nbytes: int, every_byte: bool) -> list[tuple[int, int]]:
    """Ranges of a tensor to compare: all of it, or its two ends and places spread between them."""
    if every_byte or nbytes <= _SAMPLES * _SAMPLE_BYTES:
        step = 1 << 20
        return [(start, min(start + step, nbytes)) for start in range(0, nbytes, step)]
    last = nbytes - _SAMPLE_BYTES
    starts = [last * i // (_SAMPLES - 1) for i in range(_SAMPLES)]
    return [(start, start + _SAMPLE_BYTES) for start in starts]


class _Reader:
    """Reads ranges of files, each opened once."""

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            os.close(file)

    def read(self, path: Path, offset: int, count: int) -> bytes:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = os.open(path, os.O_RDONLY)
        return os.pread(file, count, offset)


def _wrong(folder: Path, reason: str) -> NoReturn:
    raise ArtifactError(f"{folder}: verification failed: {reason}; nothing was kept")
