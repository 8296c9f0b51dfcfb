import json
import struct

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from solar.errors import ArtifactError
from solar.weights import header as header_module
from solar.weights.header import STRICTER, encode_header, read_header
from tests.faults import mutate

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
    """What the format's own reader says after reading all of it: names, dtypes, shapes; None if it refuses."""
    try:
        with safe_open(path, framework="numpy") as file:
            parts = {name: file.get_slice(name) for name in list(file.keys())}
            return {name: (part.get_dtype(), part.get_shape()) for name, part in parts.items()}
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


def disagreement(path, raw):
    """Why our verdict on a file is not the official one; None if it is, or if `STRICTER` says why we refuse."""
    path.write_bytes(raw)
    mine, theirs = ours(path), official(path)
    if mine == theirs:
        return None
    try:
        read_header(path)
    except ArtifactError as error:
        stricter = any(words in str(error) for words in STRICTER)
        return None if stricter else f"we refuse ({error}), they accept {theirs}"
    return f"we accept {mine}, they {'accept ' + str(theirs) if theirs else 'refuse'}"


@pytest.mark.parametrize("seed", [0, 1])
def test_mutated_files_get_the_official_verdict(seed, tmp_path):
    """T-E5."""
    original = save(TENSORS, metadata={"format": "pt"})
    for raw in mutate.safetensors(original, 1500, seed):
        assert (why := disagreement(tmp_path / "x.safetensors", raw)) is None, (why, raw[:400])


@pytest.mark.slow
def test_twenty_thousand_mutated_files_get_the_official_verdict(tmp_path):
    """T-E5."""
    original = save(TENSORS, metadata={"format": "pt"})
    for raw in mutate.safetensors(original, 20_000, 2):
        assert (why := disagreement(tmp_path / "x.safetensors", raw)) is None, (why, raw[:400])


def test_mutated_files_are_refused_for_many_reasons_and_some_are_whole(tmp_path):
    """Else the comparison above would say nothing."""
    path, reasons, accepted = tmp_path / "x.safetensors", set(), 0
    for raw in mutate.safetensors(save(TENSORS), 600, 5):
        path.write_bytes(raw)
        try:
            accepted += len(read_header(path).tensors) > 0
        except ArtifactError as error:
            message = str(error)
            reasons |= {reason for reason in REASONS if reason in message}
    assert 6 < accepted < 300 and reasons == set(REASONS)


REASONS = [
    *("overlaps the tensor before it", "leaves a gap before it", "tensors end at byte", "announced", "not valid JSON"),
    *("overflows 64 bits", "dtype ", "shape ", "data_offsets ", "bytes found, expected", "__metadata__", "comes twice"),
]


def test_a_header_of_too_many_tensors_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    entries = ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(5))
    path = file_of(tmp_path / "x.safetensors", b"{" + entries.encode() + b"}")
    monkeypatch.setattr(header_module, "MAX_TENSORS", 4)
    assert len(read_header(path).tensors) == 5 and len(official(path)) == 5  # two objects are no tensors
    monkeypatch.setattr(header_module, "MAX_TENSORS", 3)
    monkeypatch.setattr(header_module, "parse", lambda text: pytest.fail("parsed"))
    with pytest.raises(ArtifactError, match="6 objects in the header, expected at most 3 tensors"):
        read_header(path)
