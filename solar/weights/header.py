"""Headers of safetensors files: read without trust, and written.

The format: 8 bytes of little-endian length, that many bytes of JSON, then the raw bytes of the tensors end to end.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from solar.errors import ArtifactError
from solar.weights.strict_json import UINT64, is_text, parse

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""Longest header the format's own reader accepts."""
MAX_TENSORS = 200_000
"""In one file. The largest mixtures of experts have half as many in all their files; a header of the longest length
could announce a million, which take minutes and gigabytes."""
STRICTER = {
    "comes twice": "readers differ in which of two entries of one name they take, so one file could be two models",
    f"expected at most {MAX_TENSORS:,} tensors": "a header takes twenty times its size in memory",
}
"""Part of the message -> why we refuse a file that the format's own reader accepts."""

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
METADATA = {"format": "pt"}
"""What `transformers` expects in a file's header."""
DTYPE_OF = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of number formats in configurations -> in files."""


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
    """The tensors of one file in the order of their bytes, and its metadata."""

    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Raises `ArtifactError`, with the file and the tensor, for everything that the format's own reader refuses.

    `STRICTER` says what else is refused.
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
    """The length and the JSON at the start of a file, unchanged. Check the file with `read_header` first."""
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


def header_entries(dtypes: Mapping[str, str], shapes: Mapping[str, Iterable[int]]) -> dict[str, dict[str, Any]]:
    """Tensors laid end to end, for `encode_header`: name -> dtype, shape, data_offsets."""
    entries: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, shape in shapes.items():
        start, offset = offset, offset + math.prod(shape) * DTYPE_BITS[dtypes[name]] // 8
        entries[name] = {"dtype": dtypes[name], "shape": list(shape), "data_offsets": [start, offset]}
    return entries


def _parse(path: Path, text: bytes, data_start: int, data_bytes: int) -> Header:
    if not text.startswith(b"{"):
        _refuse(path, f"header starts with {text[:1]!r}, expected '{{'")
    if (count := text.count(b"{")) > MAX_TENSORS + 2:
        _refuse(path, f"{count:,} objects in the header, expected at most {MAX_TENSORS:,} tensors")
    try:
        entries = parse(text)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"header is not valid JSON ({error})")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(is_text(word) for item in metadata.items() for word in item):
        _refuse(path, "__metadata__ has a value that is no text, expected names and texts")
    tensors = [_tensor(path, name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.nbytes))
    _check_cover(path, tensors, data_start, data_bytes)
    return Header(tuple(tensors), metadata)


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    if not is_text(name):
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
    """Bits of a tensor; None where a product on the way exceeds 64 bits, as in the format's reader."""
    count = 1
    for size in shape:
        count *= size
        if count >= UINT64:
            return None
    bits = count * DTYPE_BITS[dtype]
    return bits if bits < UINT64 else None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < UINT64


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ArtifactError(f"{path}: {reason}; the file is damaged or no safetensors file, fetch it again")
