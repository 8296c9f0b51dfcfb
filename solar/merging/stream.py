"""Merge one tensor of every model, piece by piece: memory does not grow with the model.

Pieces are read and written at their offsets (pread, pwrite), so threads share the files without locks. The base, where
a method has one, is the first of the models.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solar.config.merging import MergeConfig
from solar.errors import StageError
from solar.merging.arithmetic import add_changes, drawn, elect, inner_products, smallest_kept, weighted_sum
from solar.merging.methods import METHODS, Linear, Products, Selective, Thin, densities_of, scale_of, weights_of
from solar.weights.header import StoredTensor
from solar.weights.numbers import FORMATS, Stored, Wide, is_finite, narrow, widen

CHUNK = 1 << 18
"""Elements a piece: with smaller ones threads wait for each other's interpreter lock.

Part of the result, since inner products are summed up by pieces and DARE draws by pieces.
"""

Combine = Callable[[int, list[Wide]], Wide]
"""The number of a piece and the piece in every model -> the merged piece."""


@dataclass(frozen=True)
class Column:
    """The same tensor in every model: where it lies, and the descriptors of the files it lies in."""

    tensors: Sequence[StoredTensor]
    descriptors: Sequence[int]

    def pieces(self) -> Iterator[list[Wide]]:
        """The widened piece of every model. The next piece reuses the arrays."""
        form = FORMATS[self.tensors[0].dtype]
        stored = np.empty(CHUNK, form.stored)
        wide = [np.empty(CHUNK, form.wide) for _ in self.tensors]
        for start in range(0, self.tensors[0].parameters, CHUNK):
            size = min(CHUNK, self.tensors[0].parameters - start)
            for tensor, descriptor, into in zip(self.tensors, self.descriptors, wide, strict=True):
                read(descriptor, stored[:size], tensor.start + start * stored.itemsize)
                widen(stored[:size], tensor.dtype, into[:size])
            yield [piece[:size] for piece in wide]


def merge_tensor(column: Column, config: MergeConfig, output: int, offset: int) -> None:
    """Write the merged tensor at `offset` of the descriptor `output`.

    Raises StageError for numbers that are not finite, read (except in models of weight 0) or written, and for a tensor
    of whole numbers that differs between models.
    """
    tensor = column.tensors[0]
    if tensor.dtype not in FORMATS:
        copy_equal(column, output, offset)
        return
    with np.errstate(all="ignore"):  # what overflows is found below
        combine = combination(column, config)
        stored = np.empty(CHUNK, FORMATS[tensor.dtype].stored)
        for number, arrays in enumerate(column.pieces()):
            merged = combine(number, arrays)
            piece = stored[: merged.size]
            narrow(merged, tensor.dtype, piece)
            if not is_finite(piece, tensor.dtype):
                refuse_not_finite(tensor, arrays, config)
                raise StageError(
                    f"{tensor.name}: found numbers too large for {tensor.dtype} in the merge of finite ones"
                )
            write(output, piece, offset + number * CHUNK * piece.itemsize)


def combination(column: Column, config: MergeConfig) -> Combine:
    """The function that merges a piece. Some methods read the whole tensor first."""
    method = METHODS[config.method]
    if isinstance(method, Linear):
        products = products_of(column, config) if method.needs_products else np.zeros((0, 0))
        weights = method.weights(config, products)
        return lambda _, arrays: weighted_sum(arrays, weights)
    return selective(method, column, config)


def products_of(column: Column, config: MergeConfig) -> Products:
    """Inner products of the models, or of their changes from the base."""
    total: Products | None = None
    for base, *models in column.pieces():
        vectors = [base, *models] if config.base is None else [model - base for model in models]
        products = inner_products(vectors)
        if not np.isfinite(products).all():
            refuse_not_finite(column.tensors[0], [base, *models], config)
        total = products if total is None else total + products
    return np.zeros((len(config.models), len(config.models))) if total is None else total


def selective(method: Selective, column: Column, config: MergeConfig) -> Combine:
    """Thin out the changes from the base, then add or elect."""
    densities, weights, scale = densities_of(config), weights_of(config), scale_of(config)
    if method.thin is Thin.largest:
        keep, enlarge = keep_largest(column, densities), [1.0] * len(weights)
    else:
        keep = keep_random(column.tensors[0].name, densities, config.seed or 0)
        enlarge = [1 / density for density in densities]

    def combine(number: int, arrays: list[Wide]) -> Wide:
        refuse_not_finite(column.tensors[0], arrays, config)  # a NaN that is thinned out would not show in the merge
        base, *models = arrays
        masks = keep(number, arrays)
        if not method.by_election:
            factors = [scale * large * weight for large, weight in zip(enlarge, weights, strict=True)]
            return add_changes(base, models, masks, factors)
        # a model that is not enlarged keeps every bit
        models = [
            model if large == 1 else base + large * (model - base) for model, large in zip(models, enlarge, strict=True)
        ]
        merged = elect(base, models, masks, weights)
        return merged if scale == 1 else base + scale * (merged - base)

    return combine


def refuse_not_finite(tensor: StoredTensor, arrays: Sequence[Wide], config: MergeConfig) -> None:
    """Raise StageError with the model whose piece has NaN or infinity."""
    folders = [*([] if config.base is None else [config.base]), *config.models]
    for folder, array in zip(folders, arrays, strict=True):
        if not np.isfinite(array).all():
            raise StageError(f"{tensor.name}: found NaN or infinity in {folder}, expected finite weights")


Keep = Callable[[int, list[Wide]], list[NDArray[np.bool_]]]
"""The number of a piece and the piece in every model, base first -> which elements of each model's change are kept."""


def keep_largest(column: Column, densities: Sequence[float]) -> Keep:
    """Keep the largest changes of each model, over the whole tensor. Equal changes are kept or dropped together."""
    bounds = [bound(column, model, density) for model, density in enumerate(densities, 1)]
    return lambda _, arrays: [abs(model - arrays[0]) >= least for model, least in zip(arrays[1:], bounds, strict=True)]


def bound(column: Column, model: int, density: float) -> float:
    """The smallest change of one model that is kept. Holds one tensor in the wide format."""
    tensor = column.tensors[0]
    if density == 1 or tensor.parameters == 0:
        return 0.0
    pair = Column([tensor, column.tensors[model]], [column.descriptors[0], column.descriptors[model]])
    magnitudes = np.empty(tensor.parameters, FORMATS[tensor.dtype].wide)
    for number, (base, changed) in enumerate(pair.pieces()):
        piece = magnitudes[number * CHUNK : number * CHUNK + base.size]
        np.abs(np.subtract(changed, base, out=piece), out=piece)
    return smallest_kept(magnitudes, density)


def keep_random(name: str, densities: Sequence[float], seed: int) -> Keep:
    """Each element by chance; the draw depends on the seed, the tensor's name and the model's place in the list."""
    tensor = zlib.crc32(name.encode())
    return lambda number, arrays: [
        drawn(model.size, density, (seed, tensor, place, number))
        for place, (model, density) in enumerate(zip(arrays[1:], densities, strict=True))
    ]


def copy_equal(column: Column, output: int, offset: int) -> None:
    """Copy a tensor that must be the same in all models: whole numbers have no mean."""
    tensor = column.tensors[0]
    size = tensor.nbytes
    for start in range(0, size, CHUNK):
        pieces = [np.empty(min(CHUNK, size - start), np.uint8) for _ in column.tensors]
        for piece, other, descriptor in zip(pieces, column.tensors, column.descriptors, strict=True):
            read(descriptor, piece, other.start + start)
        if any(not np.array_equal(piece, pieces[0]) for piece in pieces):
            raise StageError(f"{tensor.name}: {tensor.dtype} differs between models, expected equal whole numbers")
        write(output, pieces[0], offset + start)


def read(descriptor: int, into: Stored, offset: int) -> None:
    """Fill an array from a file."""
    rest = into.data.cast("B")
    while rest:
        count = os.preadv(descriptor, [rest], offset)
        if count == 0:
            raise StageError(
                f"offset {offset}: the file ends, expected {len(rest)} more bytes; did it change meanwhile?"
            )
        rest, offset = rest[count:], offset + count


def write(descriptor: int, piece: Stored, offset: int) -> None:
    """Put an array into a file."""
    rest = piece.data.cast("B")
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count
