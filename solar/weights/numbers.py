"""Number formats of safetensors files in numpy: exact widening, one rounding, one refusal of what does not fit.

numpy has no bfloat16, so bfloat16 values are handled as bits. Sums are computed in a wider format and rounded once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solar.errors import ArtifactError

Wide = NDArray[np.floating]
"""Values in the format of the computation."""
Stored = NDArray[np.generic]
"""Values as they lie in the file; bfloat16 as bits."""


@dataclass(frozen=True)
class Format:
    """A number format of safetensors files."""

    stored: type[np.generic]
    wide: type[np.floating]
    """Holds every stored value, and sums of a few of them, without rounding twice."""
    bits: type[np.unsignedinteger]
    """Unsigned integers of the stored size."""
    exponent: int
    """The exponent's bits; all set in infinities and NaN, and only there."""


FORMATS = {
    "BF16": Format(np.uint16, np.float32, np.uint16, 0x7F80),
    "F16": Format(np.float16, np.float32, np.uint16, 0x7C00),
    "F32": Format(np.float32, np.float64, np.uint32, 0x7F800000),
    "F64": Format(np.float64, np.float64, np.uint64, 0x7FF0000000000000),
}
"""Formats that arithmetic is done in, by the file format's names."""
_QUIET_NAN = 0x7FC0


def widen(stored: Stored, dtype: str, out: Wide) -> None:
    """Widen stored values, exactly."""
    if dtype == "BF16":
        np.left_shift(stored.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        np.copyto(out, stored)


def narrow(wide: Wide, dtype: str, out: Stored) -> None:
    """Round to nearest, ties to even. Overwrites `wide` (float32) for bfloat16; a NaN may become infinite."""
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


def decode(raw: bytes, dtype: str) -> Wide:
    """Values of a tensor's bytes, exactly: float32, or float64 for F64."""
    stored = np.frombuffer(raw, FORMATS[dtype].stored)
    values: Wide = np.empty(stored.size, np.float64 if dtype == "F64" else np.float32)
    widen(stored, dtype, values)
    return values


def encode(values: NDArray[Any], dtype: str, name: str) -> bytes:
    """Bytes of values, rounded to nearest with ties to even. `name` of the tensor is for the message.

    Raises:
        ArtifactError: a finite value is too large for the format.
    """
    wide = np.array(values, np.float32 if dtype == "BF16" else None, copy=dtype == "BF16" or None).ravel()
    finite, nan = np.isfinite(values).ravel(), np.isnan(values).ravel()
    stored = np.empty(wide.size, FORMATS[dtype].stored)
    with np.errstate(over="ignore"):
        narrow(wide, dtype, stored)
    if dtype == "BF16":
        stored[nan] = _QUIET_NAN
    if not is_finite(stored[finite], dtype):
        largest = np.abs(values.ravel()[finite]).max()
        raise ArtifactError(f"{name}: {largest:.4g} found, too large for {dtype}; choose another dtype")
    return stored.tobytes()
