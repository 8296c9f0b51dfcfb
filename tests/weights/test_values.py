"""Values written and read: by our reader and by the official one."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from solar.errors import ArtifactError
from solar.weights.folder import open_folder
from solar.weights.header import header_entries, read_header
from solar.weights.values import read_bytes, read_values, write_tensors

DTYPES = {"a": "BF16", "b": "F16", "c": "I64"}
SHAPES = {"a": (2, 3), "b": (2,), "c": (1,)}
A = np.array([[1.0, 1.00390625, 1.01171875], [-2.5, 0.0, 3e38]], np.float32)
"""1 + 2**-8 and 1 + 3 * 2**-8 lie half-way between bfloat16 numbers: they round to even, 1 and 1 + 2**-6."""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "model.safetensors"
    arrays = [A, np.array([0.5, 65504.0]), np.array([7], np.int64).tobytes()]
    assert write_tensors(file, DTYPES, SHAPES, arrays) == 12 + 4 + 8
    return file


def test_the_official_reader_finds_rounded_values_and_bytes_as_given(path):
    stored = load_file(path)
    assert stored["a"].dtype is torch.bfloat16 and stored["b"].dtype is torch.float16
    assert stored["a"].float()[0].tolist() == [1.0, 1.0, 1.015625]
    assert stored["b"].tolist() == [0.5, 65504.0] and stored["c"].tolist() == [7]


def test_a_slice_is_read_exactly(path):
    a, b, c = read_header(path).tensors
    assert read_values(a, 2, 5).tolist() == [1.015625, -2.5, 0.0]
    assert read_values(b, 1, 2).tolist() == [65504.0]
    assert read_bytes(c, 0, 1) == b"\x07" + bytes(7)


def test_tensors_are_laid_end_to_end():
    entries = header_entries(DTYPES, SHAPES)
    assert [entry["data_offsets"] for entry in entries.values()] == [[0, 12], [12, 16], [16, 24]]
    assert entries["a"] == {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}


def test_a_value_too_large_for_its_format_is_refused_by_name(tmp_path):
    with pytest.raises(ArtifactError, match=r"b: 6\.552e\+04 found, too large for F16"):
        write_tensors(tmp_path / "x", {"b": "F16"}, {"b": (1,)}, [np.array([65520.0])])


def test_floats_stored_wider_than_most_and_whole_numbers_are_not_cast(tmp_path):
    dtypes = {"w": "BF16", "e_score_correction_bias": "F32", "ids": "I64", "half": "F16"}
    shapes = {"w": (8,), "e_score_correction_bias": (2,), "ids": (1,), "half": (1,)}
    tensors = [np.ones(8), np.ones(2), bytes(8), np.ones(1)]
    write_tensors(tmp_path / "model.safetensors", dtypes, shapes, tensors)
    (tmp_path / "config.json").write_text(json.dumps({}))
    folder = open_folder(tmp_path)
    assert folder.main_dtype == "BF16"
    cast = {name: folder.may_be_cast(tensor) for name, tensor in folder.tensors.items()}
    assert cast == {"w": True, "half": True, "e_score_correction_bias": False, "ids": False}


def test_where_most_floats_are_wide_all_are_cast(tmp_path):
    write_tensors(
        tmp_path / "model.safetensors", {"w": "F32", "n": "BF16"}, {"w": (8,), "n": (2,)}, [np.ones(8), np.ones(2)]
    )
    (tmp_path / "config.json").write_text("{}")
    folder = open_folder(tmp_path)
    assert all(folder.may_be_cast(tensor) for tensor in folder.tensors.values())
