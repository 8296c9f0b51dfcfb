"""Every family: the grown folder loads, computes what the re-ordered base computes, and generates."""

import copy
import json
import shutil

import pytest
import torch
import transformers

from solar.config.growth_plan import GrowthPlan, Init, PlanName, WeightDtype
from solar.diagnosis import verify_logits as oracle
from solar.diagnosis.virtual import VirtualModel
from solar.errors import ArtifactError, PlanError
from solar.growth.files.verify import Verify
from solar.growth.grow import grow
from solar.growth.plans import resolve
from solar.growth.remap.families import DERIVE_NOTHING, PROVEN
from solar.growth.remap.layer_config import is_per_layer
from solar.network.loading import load_model
from tests.growth.tiny import FAMILIES, LAYERS, MULTIMODAL

DUS = GrowthPlan(PlanName.dus, m=2)
DUS_LAYERS = [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]
IDS_BT = torch.randint(3, 90, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", [*FAMILIES, *MULTIMODAL])
def test_the_grown_model_computes_what_the_reordered_base_computes(name, tiny, tmp_path):
    """DUS with a seam that breaks every pattern of the family; logits of a model built from the grown folder."""
    grow(tiny(name), tmp_path / "grown", DUS, verify=Verify.load)
    base = load_model(tiny(name))
    virtual = VirtualModel(base, LAYERS)
    own = virtual.record(IDS_BT).logits_BTV
    expected_BTV = virtual.run(DUS_LAYERS).logits_BTV
    grown = load_model(tmp_path / "grown")
    with torch.no_grad():
        logits_BTV = grown(input_ids=IDS_BT, use_cache=False).logits
    assert torch.allclose(logits_BTV, expected_BTV, rtol=0, atol=1e-5 * float(expected_BTV.abs().max()))
    assert not torch.allclose(own, expected_BTV, atol=1e-3), "the plan must change the function, else nothing was shown"


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", [name for name in (*FAMILIES, *MULTIMODAL) if name != "rwkv"])
def test_zero_out_loses_nothing(name, tiny, tmp_path):
    """Silent copies after every fourth layer: logits equal the base's to the last bit. rwkv's first layer, which has a
    norm of its own on the stream, is refused."""
    growth = GrowthPlan(PlanName.interleave, every=4, init=Init.zero_out)
    if name == "jamba":  # its attention comes every 4th layer, so that no single layer can be inserted
        growth = GrowthPlan(PlanName.dus, m=2, init=Init.zero_out)
    grow(tiny(name), tmp_path / "grown", growth, verify=Verify.load)
    base = load_model(tiny(name))
    grown = load_model(tmp_path / "grown")
    with torch.no_grad():
        assert torch.equal(
            grown(input_ids=IDS_BT, use_cache=False).logits, base(input_ids=IDS_BT, use_cache=False).logits
        )


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    "name", ["llama", "llama_tied", "qwen3", "gemma2", "gpt2", "mixtral", "deepseek_v3", "lfm2", "gpt_oss"]
)
def test_generation_with_a_cache_equals_generation_without(name, tiny, tmp_path):
    grow(tiny(name), tmp_path / "grown", DUS, verify=Verify.none)
    grown = load_model(tmp_path / "grown")
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached, plain = (grown.generate(IDS_BT[:, :8], use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, plain)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gpt2", "mixtral", "qwen2_moe", "gpt_neo", "phi"])
def test_the_reference_is_a_stack_of_deep_copied_layers(name, tiny, tmp_path):
    """Both the grown folder and the virtual model that judges it; alternations break at the seam."""
    order = [*range(7), *range(2, 8)]
    grow(tiny(name), tmp_path / "grown", GrowthPlan(PlanName.dus, p=1, q=2), verify=Verify.none)
    base = load_model(tiny(name))
    virtual = VirtualModel(base, LAYERS)
    virtual.record(IDS_BT)
    expected_BTV = virtual.run(order).logits_BTV
    body = base.base_model
    attribute = next(child for child, module in body.named_children() if isinstance(module, torch.nn.ModuleList))
    layers = [copy.deepcopy(getattr(body, attribute)[source]) for source in order]
    setattr(body, attribute, torch.nn.ModuleList(layers))
    lists = {key: value for key, value in vars(base.config).items() if is_per_layer(key, value, LAYERS)}
    for key, value in lists.items():
        setattr(base.config, key, [value[source] for source in order])
    depth = next(key for key in ("n_layer", "num_layers", "num_hidden_layers") if key in vars(base.config))
    setattr(base.config, depth, len(layers))
    with torch.no_grad():
        found_BTV = base(input_ids=IDS_BT, use_cache=False).logits
        grown_BTV = load_model(tmp_path / "grown")(input_ids=IDS_BT, use_cache=False).logits
    assert torch.equal(found_BTV, expected_BTV)
    assert torch.equal(found_BTV, grown_BTV)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "unsaid"),
    [
        ("gemma2", ["layer_types"]),
        ("gemma3_text", ["layer_types"]),
        ("qwen2_window", ["layer_types"]),
        ("cohere2", ["layer_types"]),
        ("smollm3", ["layer_types", "no_rope_layers"]),
        ("llama4_text", ["layer_types", "no_rope_layers", "moe_layers"]),
        ("gpt_oss", ["layer_types"]),
    ],
)
def test_lists_that_an_older_config_leaves_to_be_derived_are_written_down(name, unsaid, tiny, tmp_path):
    """p = 1, q = 2: the second copy starts at an even place, so that no alternation can go on by itself."""
    shutil.copytree(tiny(name), tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    said = {key: config.pop(key) for key in unsaid}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    grow(tmp_path / "base", tmp_path / "grown", GrowthPlan(PlanName.dus, p=1, q=2), verify=Verify.logits)
    grown = json.loads((tmp_path / "grown" / "config.json").read_text())
    sources = [*range(7), *range(2, 8)]
    for key in unsaid:
        of_layers = [k for k, source in enumerate(sources) if source in said[key]]
        assert grown[key] == (of_layers if key == "moe_layers" else [said[key][source] for source in sources])


@pytest.mark.usefixtures("in_process")
def test_weights_saved_without_the_head_are_found_all_the_same(tiny, tmp_path):
    """gpt2 on the hub: tensors are named `h.0...`, as the bare model saves them."""
    transformers.GPT2Model.from_pretrained(tiny("gpt2")).save_pretrained(tmp_path / "bare")
    grow(tmp_path / "bare", tmp_path / "grown", DUS, verify=Verify.bytes)
    grow(tiny("gpt2"), tmp_path / "whole", DUS, verify=Verify.none)
    bare = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "grown")
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    with torch.no_grad():
        assert torch.equal(bare(IDS_BT).logits, whole(IDS_BT).logits)


MADE = {
    "mean": GrowthPlan(PlanName.repeat_each, times=2, init=Init.mean),
    "noise": GrowthPlan(PlanName.dus, m=2, init=Init.noise, noise_std=0.1, seed=3),
    "dtype": GrowthPlan(PlanName.dus, m=2, dtype=WeightDtype.bfloat16),
    "silent, not the base": GrowthPlan(PlanName.slices, slices=[[0, 5], [2, 7]], init=Init.zero_out),
    "silent, converted": GrowthPlan(PlanName.interleave, every=4, init=Init.zero_out, dtype=WeightDtype.bfloat16),
}


@pytest.mark.parametrize("name", ["llama_tied", "gpt2", "qwen3"])
@pytest.mark.parametrize("growth", MADE.values(), ids=MADE)
@pytest.mark.usefixtures("in_process")
def test_weights_that_were_made_are_judged_in_the_layers_of_the_base(growth, name, tiny, tmp_path, monkeypatch):
    """A stream that is 1 % louder within the layers of the grown model alone is seen."""
    assert grow(tiny(name), tmp_path / "grown", growth, verify=Verify.logits).verified is Verify.logits
    honest = oracle.load_model

    def load(folder, **options):
        model = honest(folder, **options)
        if folder != tiny(name):
            layer = oracle.find_layers(model, len(resolve(growth, LAYERS).sources))[1]
            layer.register_forward_pre_hook(lambda layer, args: (args[0] * 1.01, *args[1:]))
        return model

    monkeypatch.setattr(oracle, "load_model", load)
    with pytest.raises(ArtifactError, match="logits differ"):
        grow(tiny(name), tmp_path / "wrong", growth, verify=Verify.logits)


@pytest.mark.usefixtures("in_process")
def test_loading_is_checked_without_memory_for_the_weights(tiny):
    model = load_model(tiny("mixtral"), device="meta")
    assert {one.device.type for one in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gemma2", "layer_types", ["sliding_attention", "full_attention"] * 6),
        ("olmo3", "layer_types", ["sliding_attention"] * 12),
        ("smollm3", "no_rope_layers", [1] * 12),
        ("granite", "residual_multiplier", 0.4),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_the_oracle_sees_a_configuration_that_is_wrong_in_one_value(name, key, value, tiny, tmp_path):
    growth = GrowthPlan(PlanName.dus, p=1, q=2)
    grow(tiny(name), tmp_path / "grown", growth, verify=Verify.none)
    request = {"base": str(tiny(name)), "grown": str(tmp_path / "grown"), "level": "logits", "device": "cpu"}
    request |= {"base_layers": LAYERS, "layers": [*range(7), *range(2, 8)], "same_function": True, "lossless": False}
    assert oracle.judge(request)["logits_difference"] <= 1e-5
    config = json.loads((tmp_path / "grown" / "config.json").read_text())
    length = len(config[key]) if isinstance(value, list) else 0
    config[key] = (value * 2)[:length] if length else value
    (tmp_path / "grown" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="logits differ"):
        oracle.judge(request)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"num_kv_shared_layers": 2}, "num_kv_shared_layers: 2 found: upper layers read the keys"),
        ("llama", {"hidden_size_per_layer_input": 8}, "hidden_size_per_layer_input: 8 found"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: true found"),
        ("llama", {"model_type": "diffllama"}, "model_type: diffllama found, and its attention depends on how deep"),
        (
            "llama",
            {"model_type": "zaya"},
            "model_type: zaya found, and the router of a layer reads that of the layer below",
        ),
        ("llama", {"model_type": "unheard_of"}, "model_type: 'unheard_of' found"),
        ("llama", {"is_encoder_decoder": True}, "config.json: is_encoder_decoder is true"),
        ("qwen3", {"strange_layer_interval": 3}, "strange_layer_interval: 3 found, which may say something of single"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name_and_leaves_nothing(name, change, message, tiny, tmp_path):
    shutil.copytree(tiny(name), tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text()) | change
    if "strange_layer_interval" in change:
        config |= {"model_type": "hyperclovax", "architectures": ["HyperCLOVAXForCausalLM"]}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    with pytest.raises(PlanError) as error:
        grow(tmp_path / "base", tmp_path / "grown", DUS, verify=Verify.bytes)
    assert str(error.value).startswith(message), str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.usefixtures("in_process")
def test_a_plan_that_moves_the_layers_that_pictures_enter_at_is_refused(tiny, tmp_path):
    """qwen3_vl adds what three layers of the vision tower see after the decoder's layers 0, 1 and 2."""
    base = tiny("qwen3_vl")
    grow(base, tmp_path / "kept", GrowthPlan(PlanName.middle, start=2, stop=4, times=2), verify=Verify.bytes)
    with pytest.raises(PlanError) as error:
        grow(base, tmp_path / "moved", GrowthPlan(PlanName.repeat_each, times=2), verify=Verify.bytes)
    assert str(error.value).startswith("vision_config.deepstack_visual_indexes: [1, 3, 5] found: pictures enter in")
    assert not (tmp_path / "moved").exists()


def test_every_family_called_proven_is_grown_here():
    assert {model_type for model_type, _ in FAMILIES.values()} >= PROVEN


@pytest.mark.parametrize("model_type", sorted(DERIVE_NOTHING))
def test_families_that_are_not_asked_about_derive_nothing_for_single_layers(model_type):
    """gpt_neo apart: its list of types is spelled out from `attention_types`, which config.json holds."""
    name = next(name for name, (family, _) in FAMILIES.items() if family == model_type)
    config = transformers.CONFIG_MAPPING[model_type](**FAMILIES[name][1])
    lists = {key: getattr(config, key, None) for key in dir(config) if not key.startswith("_")}
    found = {key for key, value in lists.items() if is_per_layer(key, value, LAYERS)}
    assert found <= ({"attention_layers"} if model_type == "gpt_neo" else set())
