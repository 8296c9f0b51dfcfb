import json
import math
import shutil
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from solar.config.growth import Select
from solar.config.growth_plan import GrowthPlan, Init, PlanName, SeamInit
from solar.diagnose import main
from solar.diagnosis.diagnose import diagnose
from solar.diagnosis.scan import scan_repeats
from solar.diagnosis.seams import loudness, seam_scales
from solar.diagnosis.virtual import VirtualModel
from solar.errors import DataError, PlanError, StageError
from solar.growth.files.verify import Verify
from solar.growth.grow import grow
from solar.growth.plans import resolve
from solar.network.loading import load_model
from tests.growth.tiny import LAYERS

IDS_BT = torch.randint(3, 90, (3, 20), generator=torch.Generator().manual_seed(1))
PLANS = {
    "dus": GrowthPlan(PlanName.dus, m=2),
    "silent": GrowthPlan(PlanName.interleave, every=4, init=Init.zero_out),
    "base": GrowthPlan(PlanName.dus, m=4),
    "matched": GrowthPlan(PlanName.dus, m=2, seam=SeamInit.rms_match),
    "shuffled": GrowthPlan(PlanName.explicit, layers=[7, 0, 6, 1, 5, 2, 4, 3]),
}


@pytest.fixture(scope="module")
def content(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("diagnosis")
    diagnose(tiny("llama"), [IDS_BT[:2], IDS_BT[2:]], PLANS, out)
    assert (out / "diagnosis.png").stat().st_size > 10_000
    return json.loads((out / "diagnosis.json").read_text())


def by_name(content):
    return {plan["name"]: plan for plan in content["plans"]}


class Turning(nn.Module):
    """A layer that turns a stream of two numbers by an angle and makes it louder."""

    def __init__(self, degrees, louder):
        super().__init__()
        angle = math.radians(degrees)
        turn = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        self.register_buffer("turn", louder * torch.tensor(turn))

    def forward(self, hidden_states):
        return hidden_states @ self.turn


class TurningModel(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, input_ids, use_cache):
        hidden = torch.stack([input_ids.float() + 1, torch.zeros(input_ids.shape)], dim=-1)
        for layer in self.layers:
            hidden = layer(hidden)
        return types.SimpleNamespace(logits=hidden)


def test_a_model_with_a_layer_that_text_does_not_reach_is_refused_by_the_layers_number():
    class Skipping(TurningModel):
        def forward(self, input_ids, use_cache):
            hidden = torch.stack([input_ids.float() + 1, torch.zeros(input_ids.shape)], dim=-1)
            return types.SimpleNamespace(logits=self.layers[2](self.layers[0](hidden)))  # layer 1 waits for images

    virtual = VirtualModel(Skipping(Turning(60, 1.0), Turning(30, 2.0), Turning(0, 3.0)), 3)
    with pytest.raises(PlanError, match="layer 1 of 3 does not run on text alone"):
        virtual.record(torch.zeros(1, 3, dtype=torch.long))


def test_influence_and_angles_are_those_of_layers_that_turn_by_known_angles(tmp_path):
    from solar.diagnosis.diagnose import measure

    virtual = VirtualModel(TurningModel(Turning(60, 1.0), Turning(30, 2.0), Turning(0, 3.0)), 3)
    plan = GrowthPlan(PlanName.explicit, layers=[0, 1, 1, 2])
    ids = torch.zeros(2, 3, dtype=torch.long)
    found = measure(virtual, [ids], {"twice": plan}, {"twice": resolve(plan, 3)}, Select.step0_loss, lambda line: None)
    assert found["block_influence"] == pytest.approx([1 - 0.5, 1 - math.sqrt(3) / 2, 0], abs=1e-6)
    assert found["angular_distance"][0] == pytest.approx([60 / 180, 30 / 180, 0], abs=1e-3)
    assert found["angular_distance"][1] == pytest.approx([90 / 180, 30 / 180], abs=1e-3)
    assert found["residual_rms"] == pytest.approx([math.sqrt(0.5) * scale for scale in (1, 1, 2, 6)], rel=1e-5)
    (seam,) = found["plans"][0]["seams"]
    assert (seam["position"], seam["below"], seam["above"]) == (2, 1, 1)
    assert seam["cosine"] == pytest.approx(math.sqrt(3) / 2, rel=1e-5) and seam["rms_ratio"] == pytest.approx(2.0)


def test_the_plan_that_is_the_base_costs_nothing(content):
    base = by_name(content)["base"]
    assert base["step0_gap"] == 0 and base["kl"] == 0 and base["top1_agreement"] == 1 and base["seams"] == []


def test_silent_layers_cost_nothing(content):
    silent = by_name(content)["silent"]
    assert silent["step0_gap"] == 0 and silent["kl"] == 0 and silent["top1_agreement"] == 1


def test_plans_are_ranked_and_the_best_is_named(content):
    gaps = [plan["step0_gap"] for plan in content["plans"]]
    assert gaps == sorted(gaps) and content["best"] == content["plans"][0]["name"]


@pytest.mark.parametrize("name", PLANS)
def test_the_selected_plan_is_written_layer_by_layer_and_means_the_same(tiny, tmp_path, name):
    found = diagnose(tiny("llama"), [IDS_BT], {name: PLANS[name]}, tmp_path)
    plan = GrowthPlan(**found["selected"])
    n = len(found["block_influence"])
    assert plan.plan == PlanName.explicit and resolve(plan, n) == resolve(PLANS[name], n)
    assert (plan.init, plan.seam) == (PLANS[name].init, PLANS[name].seam)


def test_two_runs_say_the_same(content, tiny, tmp_path):
    assert diagnose(tiny("llama"), [IDS_BT[:2], IDS_BT[2:]], PLANS, tmp_path) == content


@pytest.mark.usefixtures("in_process")
def test_the_virtual_loss_is_the_loss_of_the_grown_folder(content, tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "out", PLANS["dus"], verify=Verify.none)
    grown = load_model(tmp_path / "out")
    with torch.no_grad():
        losses = [float(grown(input_ids=ids[None], labels=ids[None]).loss) for ids in IDS_BT]
    assert by_name(content)["dus"]["step0_loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_a_matched_seam_is_as_loud_as_its_layer_is_used_to(content):
    """The second batch is not the one that was measured on, so near 1 and not 1."""
    assert by_name(content)["matched"]["seam_rms_ratio"] == pytest.approx(1, abs=0.1)
    assert abs(by_name(content)["dus"]["seam_rms_ratio"] - 1) > 0.2


def test_matching_brings_the_ratio_to_one_where_it_was_measured_and_leaves_a_plan_without_seams_alone(tiny):
    base = load_model(tiny("llama"))
    virtual = VirtualModel(base, LAYERS)
    dus, identity = resolve(PLANS["dus"], LAYERS), resolve(PLANS["base"], LAYERS)
    scales = seam_scales(virtual, dus, IDS_BT)
    assert set(scales.values()) == {1.0, scales[6]} and [scales[k] for k in range(6)] == [1.0] * 6
    usual = virtual.record(IDS_BT).stream[2]
    assert loudness(virtual.run(dus.sources, scales).stream[6], usual) / scales[6] == pytest.approx(1, abs=1e-3)
    assert set(seam_scales(virtual, identity, IDS_BT).values()) == {1.0}


@pytest.mark.usefixtures("in_process")
def test_matched_weights_compute_what_the_virtual_model_computes(tiny, tmp_path):
    base = load_model(tiny("llama"))
    virtual = VirtualModel(base, LAYERS)
    layers = resolve(PLANS["matched"], LAYERS)
    scales = seam_scales(virtual, layers, IDS_BT)
    expected_BTV = virtual.run(layers.sources, scales).logits_BTV
    grow(tiny("llama"), tmp_path / "out", PLANS["matched"], seam_scales=scales)
    grown = load_model(tmp_path / "out")
    with torch.no_grad():
        found_BTV = grown(input_ids=IDS_BT).logits
    assert torch.allclose(found_BTV, expected_BTV, atol=1e-4 * float(expected_BTV.abs().max()))


@pytest.mark.usefixtures("in_process")
def test_a_norm_after_what_layers_write_makes_matching_impossible_and_is_refused(tiny, tmp_path):
    scales = dict.fromkeys(range(6, 12), 2.0)
    with pytest.raises(PlanError, match="a norm comes after"):
        grow(tiny("olmo2"), tmp_path / "out", PLANS["matched"], seam_scales=scales)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (GrowthPlan(PlanName.dus, m=5), "plans.x.m: 5 found, expected 0..4"),
        (GrowthPlan(PlanName.dus, m=2, init=Init.mean), "plans.x.init: mean found, expected copy or zero_out"),
    ],
)
def test_a_candidate_that_cannot_be_run_is_refused_with_its_key(plan, said, tiny, tmp_path):
    with pytest.raises(PlanError) as error:
        diagnose(tiny("llama"), [IDS_BT], {"x": plan}, tmp_path)
    assert str(error.value).startswith(said)


def test_no_text_is_refused(tiny, tmp_path):
    with pytest.raises(DataError, match="no text"):
        diagnose(tiny("llama"), [], PLANS, tmp_path)


def test_the_model_is_as_it_was_afterwards(tiny):
    base = load_model(tiny("llama"))
    with torch.no_grad():
        before = base(input_ids=IDS_BT).logits
        virtual = VirtualModel(base, LAYERS)
        virtual.record(IDS_BT)
        virtual.run([0, 1])
        assert torch.equal(base(input_ids=IDS_BT).logits, before)


def test_a_scan_tries_every_block_and_ranks_it(tiny):
    base = load_model(tiny("llama"))
    virtual = VirtualModel(base, LAYERS)
    found = scan_repeats(virtual, IDS_BT, wall_seconds=600)
    assert found["tried"] == found["possible"] == LAYERS * (LAYERS + 1) // 2
    gaps = [block["step0_gap"] for block in found["repeats"]]
    assert gaps == sorted(gaps)
    whole = next(block for block in found["repeats"] if (block["start"], block["stop"]) == (0, LAYERS))
    losses = torch.nn.functional.cross_entropy(
        virtual.run([*range(LAYERS)] * 2).logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten()
    )
    assert whole["step0_gap"] == pytest.approx(float(losses) - found["base_loss"], abs=1e-5)


def test_a_scan_without_time_says_how_far_it_came(tiny):
    base = load_model(tiny("llama"))
    found = scan_repeats(VirtualModel(base, LAYERS), IDS_BT, wall_seconds=-1)
    assert found["tried"] == 0 and found["possible"] == 36 and found["repeats"] == []


def test_the_command_prints_candidates_best_first_and_the_scan(tmp_path, capsys):
    shared = Path(__file__).parents[3] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip(f"{shared} is not here: the trained test model and text")
    text = shared / "text" / "tinyshakespeare.txt"
    words = [str(shared / "stories260K"), f"text={text}", "tokens=512", "scan=60"]
    assert main([*words, f"output={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "5 layers, loss" in said and "dus m=1" in said and "15 of 15 repeats tried" in said
    assert {path.name for path in tmp_path.iterdir()} == {"diagnosis.json", "diagnosis.png", "scan.json"}
    assert main([str(shared), "--text", str(text)]) == 1 and capsys.readouterr().err.startswith("error: ")


def test_a_base_whose_loss_is_not_finite_is_refused_in_words(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match="the base's loss is nan, expected a finite number"):
        diagnose(folder, [IDS_BT], {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_without_a_weight_is_refused_with_its_name(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"missing keys: model\.layers\.1\.mlp\.up_proj\.weight"):
        diagnose(folder, [IDS_BT], {}, tmp_path / "out")
