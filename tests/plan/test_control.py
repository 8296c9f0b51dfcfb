"""A control is the ungrown base, trained for the tokens or the FLOPs of the grown model."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, MixtralConfig

from solar.config.data import PrepareDataConfig
from solar.config.evaluation import EvaluateConfig
from solar.config.growth import UpscaleConfig
from solar.config.growth_plan import PlanName
from solar.config.merging import MergeConfig, MergeMethod
from solar.config.model import ArchitectureConfig, InitModelConfig
from solar.config.soup import SoupConfig
from solar.config.training import Control, PretrainConfig, SftConfig, Trainable
from solar.errors import PlanError
from solar.plan.expansion.controls import control
from solar.plan.facts import work_of_architecture
from solar.weights.work import work_of_folder

SIZES = ArchitectureConfig(8, 64, 160, 4, 2, 512, 256, False, 1e4, 1e-5)
TINY = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_attention_heads": 4}
FAMILIES = {
    "llama": LlamaConfig(**TINY, num_hidden_layers=3, num_key_value_heads=2),
    "gpt2": GPT2Config(vocab_size=96, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "mixtral": MixtralConfig(
        **TINY, num_hidden_layers=2, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2
    ),
    "mistral": MistralConfig(**TINY, num_hidden_layers=2, num_key_value_heads=2, sliding_window=4),
}


def _stages(**asked):
    training = {"data": "text", "duration": "120 steps", "global_batch_size": 8, "seed": 1}
    return {
        "text": PrepareDataConfig(kind="prepare_data", sequence_length=128),
        "init": InitModelConfig(kind="init_model", architecture=SIZES),
        "base": PretrainConfig(kind="pretrain", model="init", **training),
        "up": UpscaleConfig(kind="upscale", model="base", plan=PlanName.dus, m=2),
        "heal": PretrainConfig(kind="pretrain", **({"model": "up"} | training | asked)),
    }


def test_the_base_trains_on_the_same_tokens_as_all_of_its_own_weights():
    stages = _stages(control=Control.same_tokens, trainable=Trainable.new, lr_factors={"old": 0.1, "embed": 0.5})
    made = control("heal", stages["heal"], stages)
    assert list(made) == ["heal", "heal_control"]
    beside = made["heal_control"]
    assert (beside.model, beside.duration, beside.data, beside.seed) == ("base", "120 steps", "text", 1)
    assert (beside.trainable, beside.lr_factors, beside.control) == (Trainable.all, {"embed": 0.5}, None)


def test_the_grown_model_is_trained_as_it_is_without_a_control():
    with_one, without = _stages(control=Control.same_flops), _stages()
    assert control("heal", with_one["heal"], with_one)["heal"] == without["heal"]


def test_the_same_flops_by_hand():
    # a layer: q and o 64 x 64, k and v 64 x 32, three of 64 x 160; attention 12 x 64 x 64.5 keys; head 512 x 64
    layer = 6 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160) + 12 * 64 * 64.5
    steps = 120 * (12 * layer + 6 * 512 * 64) / (8 * layer + 6 * 512 * 64)
    stages = _stages(control=Control.same_flops)
    assert control("heal", stages["heal"], stages)["heal_control"].duration == f"{round(steps)} steps"


@pytest.mark.parametrize("said,unit", [("1.5 epochs", "epochs"), ("200k tokens", "tokens")])
def test_every_unit_of_a_duration_is_scaled(said, unit):
    stages = _stages(control=Control.same_flops, duration=said)
    amount, word = control("heal", stages["heal"], stages)["heal_control"].duration.split()
    before = {"epochs": 1.5, "tokens": 200_000}[unit]
    assert word == unit and 1.3 < float(amount) / before < 1.5


def test_the_control_of_a_later_stage_goes_on_from_the_earlier_control():
    stages = _stages(control=Control.same_flops)
    tuning = {"data": "text", "duration": "10 steps", "control": Control.same_flops}
    stages["sft"] = SftConfig(kind="sft", model="heal", **tuning)
    assert control("sft", stages["sft"], stages)["sft_control"].model == "heal_control"
    stages["heal"].control = None
    assert control("sft", stages["sft"], stages)["sft_control"].model == "base"


def test_what_is_scored_by_name_is_scored_beside_its_control():
    stages = _stages(control=Control.same_tokens)
    stages["scores"] = EvaluateConfig(kind="evaluate", models=["base", "heal", "up"])
    assert control("scores", stages["scores"], stages)["scores"].models == ["base", "heal", "heal_control", "up"]


def test_a_model_that_was_not_grown_has_no_control():
    stages = _stages()
    stages["base"].control = Control.same_tokens
    with pytest.raises(PlanError, match=r"stages\.base\.control: 'init' was not trained from an upscale stage"):
        control("base", stages["base"], stages)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_closed_form_is_what_torch_counts(family, tmp_path):
    """Torch counts all pairs of eager attention; we count those that causal attention needs."""
    torch.manual_seed(0)
    kind = {"attn_implementation": "eager"} | ({"experts_implementation": "eager"} if family == "mixtral" else {})
    model = AutoModelForCausalLM.from_config(FAMILIES[family], **kind)
    model.save_pretrained(tmp_path)
    length = 24
    ids = torch.randint(0, 96, (1, length))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    pairs = sum(count for kind, count in counts.items() if kind in (torch.ops.aten.bmm, torch.ops.aten.baddbmm))
    work = work_of_folder(tmp_path)
    matrices = 6 * (sum(layer.matrices for layer in work.layers) + work.head) * length
    assert sum(counts.values()) - pairs == pytest.approx(matrices, rel=0.01)
    if family != "mistral":
        causal = sum(layer.flops(length) - 6 * layer.matrices for layer in work.layers) * length
        assert causal == pytest.approx(pairs * (length + 1) / (2 * length), rel=0.01)


def test_a_folder_and_a_description_of_a_llama_agree(tmp_path):
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert work_of_folder(tmp_path) == work_of_architecture(SIZES)


def test_windows_hold_for_the_layers_that_slide(tmp_path):
    AutoModelForCausalLM.from_config(FAMILIES["mistral"]).save_pretrained(tmp_path)
    path = Path(tmp_path / "config.json")
    config = json.loads(path.read_text()) | {"layer_types": ["full_attention", "sliding_attention"]}
    path.write_text(json.dumps(config))
    assert [layer.window for layer in work_of_folder(tmp_path).layers] == [None, 4]


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors"])
def test_a_damaged_folder_has_unknown_work(tmp_path, damage):
    AutoModelForCausalLM.from_config(FAMILIES["llama"]).save_pretrained(tmp_path)
    (tmp_path / damage).write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00{]}")
    assert work_of_folder(tmp_path) is None


@pytest.mark.parametrize("kind", ["merge", "soup"])
def test_the_same_flops_over_a_growth_of_several_models(kind):
    stages = _stages(control=Control.same_flops)
    stages["other"] = PretrainConfig(kind="pretrain", model="init", data="text", duration="1 steps")
    if kind == "merge":
        several = MergeConfig(kind="merge", models=["base", "other"], method=MergeMethod.average)
    else:
        several = SoupConfig(kind="soup", models=["base", "other"], data="text")
    alone = control("heal", stages["heal"], stages)["heal_control"]
    stages["up"].model, stages["several"] = "several", several
    made = control("heal", stages["heal"], stages)["heal_control"]
    assert (made.model, made.duration) == ("several", alone.duration)  # as many layers, so as many FLOPs


def test_the_same_flops_over_a_growth_of_all_models_asks_for_their_names():
    stages = _stages(control=Control.same_flops)
    stages["several"] = MergeConfig(kind="merge", models=["*"], method=MergeMethod.average)
    stages["up"].model = "several"
    with pytest.raises(PlanError, match=r"stages\.heal\.control: the models of 'several' are '\*'; name them"):
        control("heal", stages["heal"], stages)
