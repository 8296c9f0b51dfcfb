"""How one tensor of the grown model is made of tensors of the base.

Most are copied and never pass through here. The others are decoded a slice at a time: memory does not grow with the
tensor. bfloat16 is read and rounded with integers, so that numpy is all it takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

from solar.errors import PlanError
from solar.weights.folder import StoredTensor
from solar.weights.header import DTYPE_BITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLICE_ELEMENTS = 1 << 20
FLOAT_DTYPES = ("F32", "BF16", "F16", "F64")
DTYPE_OF = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Our names of number formats -> the file format's."""


@dataclass(frozen=True)
class Recipe:
    """Sources, combined elementwise: scale * mean(sources) + noise, or zeros; stored as `dtype`."""

    sources: tuple[StoredTensor, ...]
    """One, or two of the same shape whose mean is taken."""
    dtype: str
    zero: bool = False
    scale: float = 1.0
    noise_std: float = 0.0
    """Share of the source's root mean square."""
    seed: int = 0

    @classmethod
    def copy(cls, source: StoredTensor) -> "Recipe":
        return cls((source,), source.entry.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sources[0].entry.shape

    @property
    def nbytes(self) -> int:
        return self.sources[0].entry.parameters * DTYPE_BITS[self.dtype] // 8

    @property
    def is_copy(self) -> bool:
        """Whether the bytes are those of the source."""
        return self == Recipe.copy(self.sources[0])

    def zeroed(self) -> "Recipe":
        _expect_float(self.sources[0], "zero_out")
        return replace(self, zero=True)

    def scaled(self, factor: float) -> "Recipe":
        if factor == 1.0:
            return self
        _expect_float(self.sources[0], "rms_match")
        return replace(self, scale=self.scale * factor)

    def averaged_with(self, other: StoredTensor) -> "Recipe":
        """The mean with another layer's tensor; of two that are no floats (buffers), the first."""
        first = self.sources[0]
        if first.entry.shape != other.entry.shape or first.entry.dtype != other.entry.dtype:
            raise PlanError(
                f"init: mean found, but {first.name} and {other.name} differ in shape or dtype; choose copy"
            )
        return replace(self, sources=(first, other)) if first.entry.dtype in FLOAT_DTYPES else self

    def noised(self, std: float, seed: int) -> "Recipe":
        is_float = self.sources[0].entry.dtype in FLOAT_DTYPES
        return replace(self, noise_std=std, seed=seed) if std > 0 and is_float else self

    def stored_as(self, dtype: str) -> "Recipe":
        """In another number format; what is no float (indices, packed weights) stays."""
        return replace(self, dtype=dtype) if self.sources[0].entry.dtype in FLOAT_DTYPES else self

    def slices(self, name: str) -> Iterator[bytes]:
        """The tensor's bytes, a slice at a time. `name` of the tensor that is made and the seed decide its noise."""
        from hashlib import sha256

        import numpy as np

        count = self.sources[0].entry.parameters
        noise = self.noise_std * _rms(self.sources[0]) if self.noise_std else 0.0
        draw = np.random.default_rng([self.seed, int.from_bytes(sha256(name.encode()).digest()[:8], "little")])
        for start in range(0, count, SLICE_ELEMENTS):
            stop = min(start + SLICE_ELEMENTS, count)
            values = read_floats(self.sources[0], start, stop)
            for other in self.sources[1:]:
                values = (values + read_floats(other, start, stop)) / 2
            if self.scale != 1.0:
                values = values * self.scale
            if noise:
                values = values + noise * draw.standard_normal(stop - start)
            yield encode_floats(values, self.dtype)


def read_floats(tensor: StoredTensor, start: int, stop: int) -> "NDArray[np.float64]":
    """Elements `start` to `stop` of a float tensor, exactly."""
    import numpy as np

    width = DTYPE_BITS[tensor.entry.dtype] // 8
    with tensor.path.open("rb") as file:
        file.seek(tensor.entry.start + start * width)
        raw = file.read((stop - start) * width)
    if tensor.entry.dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[tensor.entry.dtype]).astype(np.float64)


def encode_floats(values: "NDArray[Any]", dtype: str) -> bytes:
    """Values in a number format, rounded to the nearest, ties to even; beyond its range infinity, as torch does."""
    import numpy as np

    with np.errstate(over="ignore"):
        if dtype != "BF16":
            return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()
        bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2").tobytes()


def _rms(tensor: StoredTensor) -> float:
    """Root mean square of a tensor, in one pass over its slices."""
    count, total = tensor.entry.parameters, 0.0
    for start in range(0, count, SLICE_ELEMENTS):
        values = read_floats(tensor, start, min(start + SLICE_ELEMENTS, count))
        total += float(values @ values)
    return sqrt(total / max(count, 1))


def _expect_float(tensor: StoredTensor, what: str) -> None:
    if tensor.entry.dtype not in FLOAT_DTYPES:
        raise PlanError(
            f"{tensor.name}: {tensor.entry.dtype} found, but {what} needs float weights; grow before quantizing"
        )
