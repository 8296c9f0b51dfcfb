"""Check a grown model against its base and its plan before it is published."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from solar.errors import ArtifactError
from solar.growth.files.recipes import Recipe
from solar.growth.files.writer import Range
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import Decoder
from solar.growth.remap.layer_config import is_per_layer
from solar.weights.folder import ModelFolder, open_folder
from solar.weights.header import StoredTensor


class Verify(StrEnum):
    """How much of the result is checked."""

    none = "none"
    bytes = "bytes"
    """The files are read back: names, shapes, dtypes, parameters, per-layer lists, and every byte of every tensor."""
    load = "load"
    """And `transformers` builds the model, without memory for it, with no missing or unexpected key."""
    logits = "logits"
    """`load`, and the logits equal those of the base with its layers run in the new order."""


def check_files(
    folder: Path,
    base: ModelFolder,
    decoder: Decoder,
    layers: LayerPlan,
    recipes: Mapping[str, Recipe],
    written: Mapping[str, Sequence[Range]],
) -> None:
    """Raises `ArtifactError`, naming the tensor, where the files are not what the plan and the base say.

    `written`: for each file, the ranges that were read back when they were written. Here the headers are read back:
    each tensor must lie at its source's offset inside such a range. Then its bytes are its source's.
    """
    grown = open_folder(folder)
    if difference := set(grown.tensors) ^ set(recipes):
        _wrong(folder, f"{min(difference)}: present in only one of plan and files")
    for name, recipe in recipes.items():
        tensor = grown.tensors[name]
        if (tensor.dtype, tensor.shape) != (recipe.dtype, recipe.shape):
            _wrong(folder, f"{name}: {tensor.dtype} {tensor.shape} found, expected {recipe.dtype} {recipe.shape}")
    expected = expected_parameters(base, decoder, layers)
    if grown.parameters != expected:
        _wrong(folder, f"{grown.parameters} parameters found, expected {expected}")
    _check_lists(folder, grown, base, decoder, layers)
    for name, recipe in recipes.items():
        tensor = grown.tensors[name]
        if not _proven(name, tensor, recipe, written.get(tensor.path.name, ())):
            _wrong(
                folder, f"{name}: its bytes are not those that were copied from {recipe.sources[0].name} of the base"
            )


def _proven(name: str, tensor: StoredTensor, recipe: Recipe, ranges: Sequence[Range]) -> bool:
    """Whether a tensor lies where its source's bytes, or the bytes made for it, were read back."""
    start, nbytes = tensor.start, tensor.nbytes
    place = bisect_right(ranges, start, key=lambda span: span.start) - 1
    if nbytes == 0 or place < 0:
        return nbytes == 0
    span, source = ranges[place], recipe.sources[0]
    if not recipe.is_copy:
        return (span.made, span.start, span.nbytes) == (name, start, nbytes)
    inside = start - span.start
    at_its_place = span.source == source.path and span.source_start + inside == source.start
    return at_its_place and inside + nbytes <= span.nbytes


def expected_parameters(base: ModelFolder, decoder: Decoder, layers: LayerPlan) -> int:
    """Parameters outside the layers, plus those of each layer as often as it runs."""
    sizes = [sum(base.tensors[name].parameters for name in names) for names in decoder.layers]
    outside = base.parameters - sum(sizes) - sum(base.tensors[name].parameters for name in decoder.beyond)
    return outside + sum(sizes[source] for source in layers.sources)


def _check_lists(folder: Path, grown: ModelFolder, base: ModelFolder, decoder: Decoder, layers: LayerPlan) -> None:
    before, after = decoder.configuration(base.config), decoder.configuration(grown.config)
    for key, value in before.items():
        if is_per_layer(key, value, layers.base_layers) and key in after:
            index_list = all(isinstance(item, int) for item in after[key])
            if len(after[key]) != layers.num_hidden_layers and not index_list:
                _wrong(folder, f"{key}: {len(after[key])} layers found, expected {layers.num_hidden_layers}")


def _wrong(folder: Path, reason: str) -> NoReturn:
    raise ArtifactError(f"{folder}: verification failed: {reason}; nothing was kept")
