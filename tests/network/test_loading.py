"""One door for model folders: whoever loads one, it is whole, plain and free of code, or refused in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from solar.config.training import Precision
from solar.errors import SolarError
from solar.network.loading import load_decoder, load_model, load_network
from tests.growth.tiny import make_tiny

DOORS = {
    "training": lambda folder: load_network(folder, Precision.fp32),
    "evaluation": load_decoder,
    "diagnosis": load_model,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture
def folder(base, tmp_path):
    return shutil.copytree(base, tmp_path / "model")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refusal(door, folder):
    with pytest.raises(SolarError) as caught:
        DOORS[door](folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("door", DOORS)
def test_weights_are_those_of_the_files(door, folder):
    loaded = DOORS[door](folder)
    network = loaded.network if door == "evaluation" else loaded
    stored = load_file(folder / "model.safetensors")
    parameters = dict(network.named_parameters())
    assert parameters.keys() == stored.keys()
    assert all(torch.equal(parameter, stored[name]) for name, parameter in parameters.items())


@pytest.mark.parametrize("door", DOORS)
def test_a_missing_weight_is_named_and_never_drawn(door, folder):
    """T-B6."""
    change_weights(folder, lambda weights: weights.pop("model.layers.2.mlp.up_proj.weight"))
    assert "missing keys: model.layers.2.mlp.up_proj.weight; expected every weight" in refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
def test_a_head_that_is_neither_stored_nor_tied_is_missing(door, tmp_path):
    """T-B6."""
    folder = make_tiny("llama_tied", tmp_path / "model")
    change_config(folder, tie_word_embeddings=False)
    assert "missing keys: lm_head.weight" in refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
def test_layers_that_the_configuration_leaves_out_are_unexpected(door, folder):
    """T-B6."""
    change_config(folder, num_hidden_layers=7)
    assert "unexpected keys: model.layers.7.input_layernorm.weight and 8 more" in refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
def test_buffers_of_old_checkpoints_are_harmless(door, folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_weights(folder, lambda weights: weights.update({name: torch.ones(4)}))
    DOORS[door](folder)


@pytest.mark.parametrize("door", DOORS)
def test_a_weight_of_another_shape_is_named(door, folder):
    """T-B6."""
    change_config(folder, intermediate_size=40)
    assert "mismatched keys: model.layers.0.mlp.down_proj.weight and 23 more" in refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("method", ["fp8", "bitsandbytes", "gptq", "awq", "compressed-tensors"])
def test_a_quantised_model_is_refused_with_its_method_and_a_way_out(door, method, folder):
    change_config(folder, quantization_config={"quant_method": method})
    message = refusal(door, folder)
    assert f"config.json: quantised with {method}; dequantise first: python -m solar.grow convert" in message


@pytest.mark.parametrize("door", DOORS)
def test_numbers_that_mean_nothing_without_a_scale_are_refused_by_name(door, folder):
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda weights: weights.update({name: weights[name].to(torch.float8_e4m3fn)}))
    assert f"{name} is stored as F8_E4M3, so quantised, and config.json does not say how" in refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
def test_two_sets_of_weights_in_one_folder_are_refused(door, base, tmp_path):
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "model", max_shard_size="60KB")
    shutil.copy(base / "model.safetensors", tmp_path / "model")
    assert "model.safetensors lies beside it" in refusal(door, tmp_path / "model")


@pytest.mark.parametrize("door", DOORS)
def test_pickles_are_not_loaded(door, folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin found, expected safetensors" in refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
def test_an_adapter_is_told_from_a_model(door, folder):
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json: lies beside whole weights" in refusal(door, folder)
    (folder / "model.safetensors").unlink()
    assert "holds an adapter, expected a whole model; add it to its base first" in refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "x", "auto_map": {"AutoConfig": "evil.C"}}, "auto_map asks to run code"),
        ({"attn_implementation": "evil/kernel"}, "attn_implementation asks to run code"),
        (
            {"text_config": {"_attn_implementation": "evil/kernel"}},
            "text_config._attn_implementation asks to run code",
        ),
    ],
)
def test_code_is_not_run(door, changes, words, folder):
    """T-E3."""
    (folder / "evil.py").write_text("raise SystemExit('this code ran')")
    change_config(folder, **changes)
    assert words in refusal(door, folder)


HOSTILE_CONFIGS = {
    "no JSON": "{",
    "no object": "[]",
    "nothing": "{}",
    "deep": '{"a":' * 100_000,
    "an unknown type": '{"model_type": "no_such_model"}',
    "a type that is a list": '{"model_type": ["llama"]}',
    "words for sizes": '{"model_type": "llama", "hidden_size": "wide"}',
    "no heads": '{"model_type": "llama", "num_attention_heads": 0}',
    "huge": '{"model_type": "llama", "hidden_size": 1000000000000000}',
    "negative": '{"model_type": "llama", "num_hidden_layers": -1, "vocab_size": -5}',
    "strange rope": '{"model_type": "llama", "rope_parameters": {"rope_type": "none such"}}',
    "null": '{"model_type": null, "architectures": null}',
    "strange architectures": '{"model_type": "llama", "architectures": [5]}',
    "another architecture": '{"model_type": "llama", "architectures": ["Trainer"]}',
    "an encoder": '{"model_type": "bert"}',
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("content", HOSTILE_CONFIGS.values(), ids=HOSTILE_CONFIGS)
def test_a_configuration_that_makes_no_sense_is_refused_in_one_line(door, content, folder):
    (folder / "config.json").write_text(content)
    refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff" * 8, (10**12).to_bytes(8, "little"), b"\x02" + bytes(7) + b"{}"]
)
def test_weights_that_are_no_safetensors_are_refused_in_one_line(door, content, folder):
    (folder / "model.safetensors").write_bytes(content)
    refusal(door, folder)


@pytest.mark.parametrize("door", DOORS)
def test_a_folder_that_is_not_there_is_refused(door, tmp_path):
    assert "nowhere: no such folder, expected a Hugging Face model folder" in refusal(door, tmp_path / "nowhere")
