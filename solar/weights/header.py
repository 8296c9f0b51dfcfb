"""Read the header of a safetensors file, trusting nothing in it.

The format: 8 bytes of little-endian length, that many bytes of JSON, then the raw bytes of the tensors end to end.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from solar.errors import ArtifactError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""Longest header the format's own reader accepts."""

DTYPE_BITS = {
    **dict.fromkeys(["F4"], 4),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 16),
    **dict.fromkeys(["I32", "U32", "F32"], 32),
    **dict.fromkeys(["I64", "U64", "F64", "C64"], 64),
}
FLOAT_DTYPES = ("F32", "BF16", "F16", "F64")
"""Formats that arithmetic is done in."""
DTYPE_OF = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of number formats in configurations -> in files."""
_UINT64 = 2**64
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as its file describes it."""

    path: Path
    """The file."""
    name: str
    dtype: str
    """Name in the format: `BF16`, `F32`, ..."""
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""
    nbytes: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What one file holds, in the order of its bytes."""

    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Raises `ArtifactError`, naming the file and the tensor, for all that the format's own reader refuses.

    Stricter than that reader in one way: a name that comes twice is refused, not resolved in favour of the last.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(LENGTH_BYTES)
        if len(prefix) < LENGTH_BYTES:
            _refuse(path, f"{size} bytes found, expected at least {LENGTH_BYTES}")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES:
            _refuse(path, f"header of {length} bytes announced, expected at most {MAX_HEADER_BYTES}")
        if LENGTH_BYTES + length > size:
            _refuse(path, f"header of {length} bytes announced, but the file ends after {size - LENGTH_BYTES}")
        text = file.read(length)
    return _parse(path, text, data_start=LENGTH_BYTES + length, data_bytes=size - LENGTH_BYTES - length)


def header_bytes(path: Path) -> bytes:
    """The length and JSON that a file starts with, as they are; read and check the header first."""
    with path.open("rb") as file:
        length = file.read(LENGTH_BYTES)
        return length + file.read(int.from_bytes(length, "little"))


def encode_header(
    tensors: Mapping[str, Mapping[str, Any]], metadata: Mapping[str, str], modulus: int = 8, residue: int = 0
) -> bytes:
    """Length and JSON of a file; `tensors` maps names to dtype, shape and data_offsets.

    Padded with spaces to a length of `residue` modulo `modulus`: where in a block of the disk the data starts.
    """
    text = json.dumps({"__metadata__": dict(metadata), **tensors}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * ((residue - LENGTH_BYTES - len(text)) % modulus)
    return struct.pack("<Q", len(text)) + text


def _parse(path: Path, text: bytes, data_start: int, data_bytes: int) -> Header:
    if not text.startswith(b"{"):
        _refuse(path, f"header starts with {text[:1]!r}, expected '{{'")
    try:
        entries = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        _refuse(path, f"header is not valid JSON ({error})")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(_is_text(word) for item in metadata.items() for word in item):
        _refuse(path, "__metadata__ found with something else than text in it, expected names and texts")
    tensors = [_tensor(path, name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.nbytes))
    _check_cover(path, tensors, data_start, data_bytes)
    return Header(tuple(tensors), metadata)


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    if not _is_text(name):
        _refuse(path, f"{name!r}: a name that is no valid text")
    if not isinstance(entry, dict):
        _refuse(path, f"{name}: {type(entry).__name__} found, expected dtype, shape and data_offsets")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        _refuse(path, f"{name}: dtype {dtype!r} found, expected one of {', '.join(DTYPE_BITS)}")
    if not isinstance(shape, list) or not all(_is_size(size) for size in shape):
        _refuse(path, f"{name}: shape {shape!r} found, expected a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        _refuse(path, f"{name}: data_offsets {offsets!r} found, expected two offsets")
    start, stop = offsets
    bits = _bits(shape, dtype)
    if bits is None:
        _refuse(path, f"{name}: shape {shape} overflows 64 bits")
    if bits % 8:
        _refuse(path, f"{name}: {bits} bits found, expected whole bytes")
    if stop - start != bits // 8:
        _refuse(path, f"{name}: {stop - start} bytes found, expected {bits // 8} for {dtype} of shape {shape}")
    return StoredTensor(path, name, dtype, tuple(shape), data_start + start, stop - start)


def _check_cover(path: Path, tensors: list[StoredTensor], data_start: int, data_bytes: int) -> None:
    """The tensors lie end to end and fill the data: no gap to hide bytes in, no overlap."""
    expected = 0
    for tensor in tensors:
        start = tensor.start - data_start
        if start != expected:
            what = "overlaps the tensor before it" if start < expected else "leaves a gap before it"
            _refuse(path, f"{tensor.name}: starts at {start} and {what}, expected {expected}")
        expected = start + tensor.nbytes
    if expected != data_bytes:
        _refuse(path, f"tensors end at byte {expected} of the data, expected {data_bytes}")


def _bits(shape: list[int], dtype: str) -> int | None:
    """Bits of a tensor, or None where the count leaves 64 bits on the way, as the format's reader computes it."""
    count = 1
    for size in shape:
        count *= size
        if count >= _UINT64:
            return None
    bits = count * DTYPE_BITS[dtype]
    return bits if bits < _UINT64 else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in {other for other, _ in pairs[:i]})
        raise ValueError(f"{twice!r} comes twice")
    return entries


def _integer(text: str) -> int | float:
    """An integer, or for what the format's reader takes as a float (-0, beyond 64 bits) a float."""
    value = int(text) if len(text) < 32 else _UINT64
    return float(text) if value >= _UINT64 or text.startswith("-") else value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is out of range")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _UINT64


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and _SURROGATE.search(value) is None


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ArtifactError(f"{path}: {reason}; the file is damaged or no safetensors file, fetch it again")
