"""Seeded damage to the bytes of a safetensors file, mostly in its header, where a reader's checks are."""

import json
import random
import struct
from collections.abc import Iterator
from typing import Any

_WORDS = [
    *(b"F32", b"F16", b"BF16", b"U8", b"I64", b"F4", b"C64", b"dtype", b"shape", b"data_offsets", b"__metadata__"),
    *(b'"a"', b"[", b"]", b"{", b"}", b",", b":", b" ", b"-", b"e5", b"0", b"1.0", b"99999999999999999999"),
    *(b"null", b"true", b"NaN", b"\\u0061", b"\\ud800", b"\xff", b"\0", b"18446744073709551615", b"4294967296"),
]


def safetensors(original: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Files that differ from a good one: one in three by what its header says, the others by their bytes."""
    draw = random.Random(seed)
    for number in range(count):
        yield _said(original, draw) if number % 3 == 0 else _bytes(original, draw)


def _bytes(original: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut, inserted; words and numbers put in, mostly in the header."""
    raw = bytearray(original)
    for _ in range(draw.randint(1, 3)):
        raw = raw or bytearray(b"x")
        header = min(len(raw), 330)
        at = draw.randrange(len(raw)) if draw.random() < 0.3 or header <= 8 else draw.randrange(8, header)
        kind = draw.randrange(6)
        if kind == 0:
            raw[at] = draw.randrange(256)
        elif kind == 1:
            del raw[at : at + draw.randint(1, 9)]
        elif kind == 2:
            raw[at:at] = draw.choice(_WORDS)
        elif kind == 3:
            raw[at : at + draw.randint(1, 4)] = draw.choice(_WORDS)
        elif kind == 4:
            raw[at : at + 1] = str(draw.randrange(12)).encode()
        else:
            raw = raw[:at] if draw.random() < 0.5 else raw + bytes(draw.randint(1, 9))
    if draw.random() < 0.8 and len(raw) > 8:  # keep the length right, so that the mutation reaches the parser
        (length,) = struct.unpack("<Q", original[:8])
        raw[:8] = struct.pack("<Q", max(length + len(raw) - len(original), 0))
    return bytes(raw)


def _said(original: bytes, draw: random.Random) -> bytes:
    """A header that is well-formed JSON and lies: about offsets, dtypes, shapes, names, or its own length."""
    (length,) = struct.unpack("<Q", original[:8])
    header: dict[str, Any] = json.loads(original[8 : 8 + length])
    data = original[8 + length :]
    for _ in range(draw.randint(1, 2)):
        whole = [key for key, entry in header.items() if isinstance(entry, dict) and _is_whole(entry)]
        if not whole:
            break
        name = draw.choice(whole)
        entry = header[name]
        match draw.randrange(8):
            case 0:
                place = draw.randrange(2)
                entry["data_offsets"][place] += draw.choice([-(2**63), -8, -4, -1, 1, 4, 8, 2**31, 2**63, 2**64])
            case 1:
                entry["dtype"] = draw.choice(["F32", "F64", "I8", "BOOL", "F4", "F8_E4M3", "f32", "F33", "", 3, None])
            case 2:
                entry["shape"] = draw.choice(
                    [[], [0], [-1], [2**32, 2**32], [2**63, 2], [1.5], [True], "6", [[6]], None]
                )
            case 3:
                other = draw.choice(whole)
                header[name], header[other] = header[other], header[name]
            case 4:
                header[draw.choice(["", "\0", "new", "__metadata__", "\ud800"])] = draw.choice(
                    [entry, 3, None, {}, "x"]
                )
            case 5:
                entry[draw.choice(["extra", "dtype", "shape", "data_offsets"])] = draw.choice([0, None, [], {}, "F32"])
            case 6:
                entry["data_offsets"] = [offset + draw.choice([4, 4, 4, 8]) for offset in entry["data_offsets"]]
            case _:
                data = draw.choice([data[: draw.randrange(len(data) + 1)], data + bytes(draw.randint(1, 9)), b""])
    text = json.dumps(header, separators=draw.choice([(",", ":"), (", ", ": ")])).encode()
    if draw.random() < 0.05:
        text = text[:-1] + b"," + text[1:]  # every name twice
    text += b" " * draw.choice([0, 0, 1, 7])
    announced = len(text) + draw.choice([0, 0, 0, 0, -1, 1, 8, 2**40, 2**64 - 1 - len(text)])
    return struct.pack("<Q", announced) + text + data


def _is_whole(entry: dict[str, Any]) -> bool:
    """Whether an earlier change left an entry that can be changed again."""
    offsets = entry.get("data_offsets")
    return isinstance(offsets, list) and len(offsets) == 2
