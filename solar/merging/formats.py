"""Stored numbers, and the wider ones that arithmetic is done in, so that a merge is rounded once.

bfloat16 and float16 are added up in float32, float32 in float64. Arrays are flat; `wide` is the array computed with.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.floating]
"""Values of one tensor, or of a piece of it, in the format that is computed in."""
Stored = NDArray[np.generic]
"""The same values as they lie in the file; bfloat16 as its bits, which numpy has no type for."""


@dataclass(frozen=True)
class Format:
    """A number format of safetensors files."""

    stored: type[np.generic]
    wide: type[np.floating]
    bits: type[np.unsignedinteger]
    """Unsigned integers of the stored size."""
    exponent: int
    """The exponent's bits; all set in infinities and NaN, and only there."""


FORMATS = {
    "BF16": Format(np.uint16, np.float32, np.uint16, 0x7F80),
    "F16": Format(np.float16, np.float32, np.uint16, 0x7C00),
    "F32": Format(np.float32, np.float64, np.uint32, 0x7F800000),
}
"""What can be averaged, by the name safetensors has for it."""


def widen(stored: Stored, dtype: str, out: Wide) -> None:
    """Exact: every stored value has a wide one."""
    if dtype == "BF16":
        np.left_shift(stored.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        np.copyto(out, stored)


def narrow(wide: Wide, dtype: str, out: Stored) -> None:
    """Round to nearest, ties to even. `wide` is used up."""
    if dtype == "BF16":
        bits = wide.view(np.uint32)
        rounding = np.right_shift(bits, 16)
        rounding &= 1
        rounding += 0x7FFF
        bits += rounding
        np.right_shift(bits, 16, out=rounding)
        np.copyto(out, rounding, casting="unsafe")
    else:
        np.copyto(out, wide, casting="unsafe")


def is_finite(stored: Stored, dtype: str) -> bool:
    """Whether no value is infinite or NaN."""
    form = FORMATS[dtype]
    exponents = np.bitwise_and(stored.view(form.bits), form.exponent)
    return exponents.size == 0 or int(exponents.max()) != form.exponent
