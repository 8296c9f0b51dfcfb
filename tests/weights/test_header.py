import json
import random
import struct

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from solar.errors import ArtifactError
from solar.weights.header import encode_header, read_header

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.zeros((0, 4), dtype=np.int64),
    "c": np.array(7, dtype=np.uint8),
    "d": np.ones((3, 1, 2), dtype=np.float16),
}


def file_of(path, header, data=b""):
    """A file with any header: a dictionary, or the JSON text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def official(path):
    """What the format's own reader says: names, dtypes, shapes; None if it refuses."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {
                name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in list(file.keys())
            }
    except (SafetensorError, OSError):
        return None


def ours(path):
    try:
        return {entry.name: (entry.dtype, list(entry.shape)) for entry in read_header(path).tensors}
    except ArtifactError:
        return None


def test_names_shapes_and_offsets_are_those_that_were_saved(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(TENSORS, metadata={"format": "pt"}))
    header = read_header(path)
    assert header.metadata == {"format": "pt"}
    raw = path.read_bytes()
    for entry in header.tensors:
        array = TENSORS[entry.name]
        assert entry.shape == array.shape and raw[entry.start : entry.start + entry.nbytes] == array.tobytes()


def test_what_we_write_the_official_reader_reads(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = encode_header({"größe": entry}, {"format": "pt"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + np.array([1.5, -2.0], np.float32).tobytes())
    assert len(header) % 8 == 0
    with safe_open(path, framework="numpy") as file:
        assert file.get_tensor("größe").tolist() == [1.5, -2.0] and file.metadata() == {"format": "pt"}


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": {**F32, "data_offsets": [4, 8]}}, bytes(8), "a: starts at 4 and leaves a gap"),
        ({"a": F32, "b": F32}, bytes(4), "b: starts at 0 and overlaps"),
        ({"a": F32}, bytes(8), "tensors end at byte 4 of the data, expected 8"),
        ({"a": F32}, bytes(3), "tensors end at byte 4 of the data, expected 3"),
        ({"a": {**F32, "shape": [2**40, 2**40]}}, bytes(4), "a: shape [1099511627776, 1099511627776] overflows"),
        ({"a": {**F32, "shape": [2**63]}}, bytes(4), "overflows 64 bits"),
        ({"a": {**F32, "shape": [-1]}}, bytes(4), "a: shape [-1.0] found"),
        ({"a": {**F32, "shape": [1.0]}}, bytes(4), "a: shape [1.0] found"),
        ({"a": {**F32, "shape": [True]}}, bytes(4), "a: shape [True] found"),
        ({"a": {**F32, "dtype": "F33"}}, bytes(4), "a: dtype 'F33' found"),
        ({"a": {**F32, "dtype": "F4", "shape": [3]}}, bytes(2), "a: 12 bits found, expected whole bytes"),
        ({"a": {**F32, "data_offsets": [0]}}, bytes(4), "a: data_offsets [0] found"),
        ({"a": {**F32, "data_offsets": [4, 0]}}, bytes(4), "a: -4 bytes found"),
        ({"a": 3}, bytes(4), "a: int found"),
        (b'{"a":1,"a":2}', b"", "'a' comes twice"),
        (b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4), "'dtype' comes twice"),
        (b"[]", b"", "header starts with b'['"),
        (b' {"a":1}', b"", "header starts with b' '"),
        (b'{"a":NaN}', b"", "NaN is no JSON"),
        (b'{"a":1e999}', b"", "1e999 is out of range"),
        (b"{" + b'"a":{' * 60000, b"", "not valid JSON"),
        (b'{"\\ud800":1}', b"", "no valid text"),
        (b'{"__metadata__":{"a":1}}', b"", "__metadata__ has a value that is no text"),
        (b"\xff\xfe", b"", "header starts with"),
        (b"", b"", "header starts with"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_damaged_header_is_refused_with_the_tensor_and_the_reason(header, data, said, tmp_path):
    path = file_of(tmp_path / "x.safetensors", header, data)
    with pytest.raises(ArtifactError) as error:
        read_header(path)
    assert said in str(error.value) and str(path) in str(error.value)
    assert official(path) is None or "twice" in said


@pytest.mark.parametrize(
    "raw", [b"", b"1234567", struct.pack("<Q", 10**9), struct.pack("<Q", 2**64 - 1), b"\x08" + bytes(7)]
)
def test_a_length_that_lies_is_refused(raw, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    with pytest.raises(ArtifactError):
        read_header(path)
    assert official(path) is None


def mutations(original, count, seed):
    """Files that differ from a good one: bytes changed, cut, inserted; words and numbers edited."""
    draw = random.Random(seed)
    words = [
        b"F32",
        b"F16",
        b"BF16",
        b"U8",
        b"I64",
        b"F4",
        b"dtype",
        b"shape",
        b"data_offsets",
        b"__metadata__",
        b'"a"',
    ]
    words += [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b" ",
        b"-",
        b"e5",
        b"0",
        b"99999999999999999999",
        b"null",
        b"true",
        b"\\u0061",
    ]
    for _ in range(count):
        raw = bytearray(original)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(raw)) if draw.random() < 0.3 else draw.randrange(8, min(len(raw), 330))
            kind = draw.randrange(5)
            if kind == 0:
                raw[at] = draw.randrange(256)
            elif kind == 1:
                del raw[at : at + draw.randint(1, 9)]
            elif kind == 2:
                raw[at:at] = draw.choice(words)
            elif kind == 3:
                raw[at : at + draw.randint(1, 4)] = draw.choice(words)
            else:
                raw[at : at + 1] = str(draw.randrange(12)).encode()
            raw = raw or bytearray(b"x")
        if draw.random() < 0.8:  # keep the length right, so that the mutation reaches the parser
            shift = len(raw) - len(original)
            (length,) = struct.unpack("<Q", original[:8])
            raw[:8] = struct.pack("<Q", max(length + shift, 0))
        yield bytes(raw)


def disagreement(path, raw):
    """Why our verdict on a file is not the official one; None if it is, or if we are stricter in the way we say."""
    path.write_bytes(raw)
    mine, theirs = ours(path), official(path)
    if mine == theirs:
        return None
    try:
        read_header(path)
    except ArtifactError as error:
        return None if "twice" in str(error) else f"we refuse ({error}), they accept {theirs}"
    return f"we accept {mine}, they {'accept ' + str(theirs) if theirs else 'refuse'}"


@pytest.mark.parametrize("seed", [0, 1])
def test_mutated_files_get_the_official_verdict(seed, tmp_path):
    original = save(TENSORS, metadata={"format": "pt"})
    for raw in mutations(original, 1500, seed):
        assert (why := disagreement(tmp_path / "x.safetensors", raw)) is None, (why, raw[:400])


@pytest.mark.slow
def test_twenty_thousand_mutated_files_get_the_official_verdict(tmp_path):
    original = save(TENSORS, metadata={"format": "pt"})
    for raw in mutations(original, 20_000, 2):
        assert (why := disagreement(tmp_path / "x.safetensors", raw)) is None, (why, raw[:400])


def test_most_mutations_are_refused_and_some_are_not(tmp_path):
    """Else the comparison above would say nothing."""
    path, verdicts = tmp_path / "x.safetensors", []
    for raw in mutations(save(TENSORS), 300, 5):
        path.write_bytes(raw)
        verdicts.append(ours(path) is not None)
    assert 3 < sum(verdicts) < 200
