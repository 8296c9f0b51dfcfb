"""How a tensor of the grown model is made from tensors of the base.

Copies are moved as bytes, not through this module's numbers. Other tensors are decoded slice by slice, so memory does
not grow with the tensor. bfloat16 is read and rounded with integers in numpy.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt

from solar.errors import PlanError
from solar.weights.header import DTYPE_BITS, FLOAT_DTYPES, StoredTensor

SLICE_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """Sources, combined elementwise: scale * mean(sources) + noise, or zeros; stored as `dtype`."""

    sources: tuple[StoredTensor, ...]
    """A single tensor, or two of the same shape, of which the mean is taken."""
    dtype: str
    zero: bool = False
    scale: float = 1.0
    noise_std: float = 0.0
    """Share of the source's root mean square."""
    seed: int = 0

    @classmethod
    def copy(cls, source: StoredTensor) -> "Recipe":
        return cls((source,), source.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sources[0].shape

    @property
    def nbytes(self) -> int:
        return self.sources[0].parameters * DTYPE_BITS[self.dtype] // 8

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
        """The mean with another layer's tensor; of buffers that are no floats, the first."""
        first = self.sources[0]
        if first.shape != other.shape or first.dtype != other.dtype:
            raise PlanError(
                f"init: mean found, but {first.name} and {other.name} differ in shape or dtype; choose copy"
            )
        return replace(self, sources=(first, other)) if first.dtype in FLOAT_DTYPES else self

    def noised(self, std: float, seed: int) -> "Recipe":
        is_float = self.sources[0].dtype in FLOAT_DTYPES
        return replace(self, noise_std=std, seed=seed) if std > 0 and is_float else self

    def stored_as(self, dtype: str) -> "Recipe":
        """In another number format."""
        return replace(self, dtype=dtype)

    def slices(self, name: str) -> Iterator[bytes]:
        """The tensor's bytes, slice by slice. The new tensor's `name` and the seed determine the noise."""
        from hashlib import sha256  # a growth that only copies starts faster without these imports

        import numpy as np

        from solar.weights.numbers import encode
        from solar.weights.values import read_values

        count = self.sources[0].parameters
        noise = self.noise_std * _rms(self.sources[0]) if self.noise_std else 0.0
        draw = np.random.default_rng([self.seed, int.from_bytes(sha256(name.encode()).digest()[:8], "little")])
        for start in range(0, count, SLICE_ELEMENTS):
            stop = min(start + SLICE_ELEMENTS, count)
            values = read_values(self.sources[0], start, stop)
            for other in self.sources[1:]:
                values = (values + read_values(other, start, stop)) / 2
            if self.scale != 1.0:
                values = values * self.scale
            if noise:
                values = values + noise * draw.standard_normal(stop - start)
            yield encode(values, self.dtype, name)


def _rms(tensor: StoredTensor) -> float:
    """Root mean square of a tensor, in one pass over its slices."""
    from solar.weights.values import read_values

    count, total = tensor.parameters, 0.0
    for start in range(0, count, SLICE_ELEMENTS):
        values = read_values(tensor, start, min(start + SLICE_ELEMENTS, count))
        total += float(values @ values)
    return sqrt(total / max(count, 1))


def _expect_float(tensor: StoredTensor, what: str) -> None:
    if tensor.dtype not in FLOAT_DTYPES:
        raise PlanError(f"{tensor.name}: {tensor.dtype} found, but {what} needs float weights; grow before quantizing")
