"""Growing a quantised model: weights are copied or refused, and settings name the grown layers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from solar.config.growth_plan import GrowthPlan, Init, PlanName, SeamInit, WeightDtype
from solar.errors import ArtifactError, PlanError
from solar.growth.files.verify import Verify
from solar.growth.grow import grow
from solar.growth.job import work_out
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import find_decoder
from solar.growth.remap.quantised_layers import layer_mentions, remap_quantisation
from solar.weights.folder import open_folder

DUS = GrowthPlan(PlanName.dus, m=2)
SOURCES = [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]
"""Layers 0-3 are at these positions: 0, 1, 2 and 6, 3 and 7."""
SKIPPED = [f"model.layers.{layer}.mlp.down_proj" for layer in range(4)]


@pytest.fixture
def fp8(tiny, tmp_path):
    """The tiny llama in 8-bit floats with scales; layers 0-3 keep their down_proj in bfloat16."""

    def write(key="modules_to_not_convert", names=("lm_head", *SKIPPED), skipped=SKIPPED, **settings):
        folder = tmp_path / "fp8"
        shutil.copytree(tiny("llama"), folder)
        tensors = {}
        for name, weight in load_file(folder / "model.safetensors").items():
            if not name.endswith("proj.weight") or name.removesuffix(".weight") in skipped:
                tensors[name] = weight.bfloat16()
                continue
            scale = weight.abs().max() / 448
            tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale.reshape(1, 1)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        quantisation = {"quant_method": "fp8", "weight_block_size": [128, 128], key: list(names), **settings}
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantisation}))
        return folder

    return write


def grown_settings(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def test_a_copied_8_bit_model_keeps_every_byte(fp8, tmp_path):
    base = fp8()
    report = grow(base, tmp_path / "out", DUS)
    stored = load_file(base / "model.safetensors")
    expected = {name: tensor for name, tensor in stored.items() if ".layers." not in name}
    for position, source in enumerate(SOURCES):
        of_layer = {name: tensor for name, tensor in stored.items() if f".layers.{source}." in name}
        expected |= {name.replace(f".{source}.", f".{position}.", 1): tensor for name, tensor in of_layer.items()}
    grown = {name: x for path in (tmp_path / "out").glob("*.safetensors") for name, x in load_file(path).items()}
    assert grown.keys() == expected.keys() and report.verified is Verify.bytes
    for name, tensor in expected.items():
        assert grown[name].dtype is tensor.dtype
        assert torch.equal(grown[name].view(torch.uint8), tensor.view(torch.uint8)), name


@pytest.mark.parametrize("key", ["modules_to_not_convert", "ignore", "llm_int8_skip_modules"])
def test_a_list_of_layers_0_to_3_names_the_places_where_these_layers_went(key, fp8, tmp_path):
    grow(fp8(key), tmp_path / "out", DUS)
    places = [0, 1, 2, 6, 3, 7]
    assert grown_settings(tmp_path / "out")[key] == ["lm_head", *(SKIPPED[0].replace(".0.", f".{k}.") for k in places)]
    left = set(grown_settings(tmp_path / "out"))
    assert left == {"quant_method", "weight_block_size", key}


def test_a_list_inside_groups_is_carried_over_too(fp8, tmp_path):
    groups = {"group_0": {"targets": ["Linear", "model.layers.7.mlp.up_proj"], "weights": {"num_bits": 8}}}
    grow(fp8(config_groups=groups), tmp_path / "out", DUS)
    group = grown_settings(tmp_path / "out")["config_groups"]["group_0"]
    assert group == {"targets": ["Linear", "model.layers.11.mlp.up_proj"], "weights": {"num_bits": 8}}


@pytest.mark.parametrize(
    "pattern", [r"re:.*layers\.[0-3]\.mlp\.down_proj", r"re:model\.layers\.0\..*", r"model.layers.(0|1).mlp.*"]
)
def test_a_pattern_that_may_mean_single_layers_is_refused(pattern, fp8):
    with pytest.raises(PlanError, match="which may mean single layers; grow the original"):
        work_out(fp8(names=["lm_head", pattern]), DUS)


def test_a_pattern_that_means_all_layers_alike_is_kept(fp8, tmp_path):
    grow(fp8(names=["re:.*lm_head", "re:.*gate$"], skipped=[]), tmp_path / "out", DUS)
    assert grown_settings(tmp_path / "out")["modules_to_not_convert"] == ["re:.*lm_head", "re:.*gate$"]


def test_settings_of_a_single_layer_are_refused(fp8):
    with pytest.raises(PlanError, match=r"settings for model\.layers\.3\.mlp found; grow the original"):
        work_out(fp8(dynamic={"model.layers.3.mlp": {"bits": 8}}), DUS)


@pytest.mark.parametrize(
    "change",
    [
        {"init": Init.mean},
        {"init": Init.noise, "noise_std": 0.1, "seed": 0},
        {"init": Init.zero_out},
        {"seam": SeamInit.rms_match},
        {"dtype": WeightDtype.float16},
    ],
    ids=["mean", "noise", "zero_out", "rms_match", "dtype"],
)
def test_arithmetic_with_quantised_weights_is_refused_in_one_line(change, fp8, tmp_path):
    with pytest.raises(
        ArtifactError, match=r"config\.json: quantised with fp8; dequantise first: python -m"
    ) as refusal:
        grow(fp8(), tmp_path / "out", GrowthPlan(PlanName.dus, m=2, **change))
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


def test_packed_weights_are_refused_though_config_json_says_nothing(fp8):
    base = fp8()
    config = json.loads((base / "config.json").read_text())
    del config["quantization_config"]
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="is stored as F8_E4M3, so quantised"):
        work_out(base, GrowthPlan(PlanName.dus, m=2, init=Init.mean))


def test_layers_that_differ_without_being_listed_are_refused(fp8):
    """Layers 0-3 lack a scale: only the list says why. Layer 0 may be special: it stays at its end."""
    with pytest.raises(PlanError, match=r"layers\.4: differs from layer 1 in .*down_proj\.weight_scale_inv"):
        work_out(fp8(names=["lm_head"]), DUS)


def test_a_list_in_the_language_models_part_names_the_decoder_and_leaves_the_vision_tower(tiny):
    """Both towers call their layers `layers`, and both have eight."""
    config = json.loads((tiny("mistral3") / "config.json").read_text())
    shapes = {name: tensor.shape for name, tensor in open_folder(tiny("mistral3")).tensors.items()}
    decoder = find_decoder(config, shapes)
    names = ["vision_tower.transformer.layers.3.feed_forward", "language_model.model.layers.3.mlp"]
    config["text_config"]["quantization_config"] = {"quant_method": "fp8", "modules_to_not_convert": names}
    assert layer_mentions(config, decoder)[3] == {"language_model.model.layers.0.mlp"}
    remapped = remap_quantisation(config, decoder, LayerPlan(8, tuple(SOURCES)))
    grown = [names[0], "language_model.model.layers.3.mlp", "language_model.model.layers.7.mlp"]
    assert remapped["text_config"]["quantization_config"]["modules_to_not_convert"] == grown


def test_the_unchanged_model_may_have_any_rules(fp8):
    base = fp8(names=["re:.*layers\\.0\\..*", *SKIPPED])
    job = work_out(base, GrowthPlan(PlanName.dus, m=4))
    assert job.config["quantization_config"]["modules_to_not_convert"][0] == "re:.*layers\\.0\\..*"
