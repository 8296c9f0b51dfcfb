"""Quantised checkpoints are known by config.json, or by how their weights are stored."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from solar.errors import ArtifactError
from solar.weights.folder import open_folder
from solar.weights.header import encode_header
from solar.weights.quantised import quantisation, refuse_packed, refuse_quantised


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"quantization_config": {"bits": 4}}, "a method that it does not name"),
        ({"quantization_config": None}, None),
        ({"quantization_config": {}}, None),
        ({"vision_config": {"hidden_size": 4}}, None),
    ],
)
def test_the_method_is_read_at_any_depth(config, method):
    assert quantisation(config) == method


def test_the_refusal_names_file_method_and_the_command_that_dequantises(tmp_path):
    with pytest.raises(ArtifactError) as refusal:
        refuse_quantised(tmp_path, {"quantization_config": {"quant_method": "gptq"}})
    assert str(refusal.value) == (
        f"{tmp_path}/config.json: quantised with gptq; dequantise first: python -m solar.grow convert {tmp_path} OUT"
    )
    refuse_quantised(tmp_path, {})


def model(folder, name, array=None, dtype=None):
    (folder / "config.json").write_text(json.dumps({}))
    if array is not None:
        save_file({name: array}, folder / "model.safetensors")
    else:
        header = encode_header({name: {"dtype": dtype, "shape": [8], "data_offsets": [0, 8]}}, {})
        (folder / "model.safetensors").write_bytes(header + bytes(8))
    return open_folder(folder)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_8_bit_floats_are_refused_whatever_config_json_says(dtype, tmp_path):
    with pytest.raises(
        ArtifactError, match=rf"up_proj\.weight is stored as {dtype}, so quantised, and config.json does not say how"
    ):
        refuse_packed(model(tmp_path, "up_proj.weight", dtype=dtype))


@pytest.mark.parametrize("name", ["up_proj.weight", "up_proj.qweight"])
def test_weights_stored_as_integers_are_refused(name, tmp_path):
    with pytest.raises(ArtifactError, match="is stored as U8, so quantised"):
        refuse_packed(model(tmp_path, name, np.zeros(8, np.uint8)))


@pytest.mark.parametrize("array", [np.zeros(8, np.int64), np.zeros(8, np.float32), np.zeros(8, np.float64)])
def test_plain_numbers_are_accepted(array, tmp_path):
    refuse_packed(model(tmp_path, "weight", array))


def test_a_buffer_of_small_integers_is_accepted(tmp_path):
    refuse_packed(model(tmp_path, "position_ids", np.zeros(8, np.int32)))
