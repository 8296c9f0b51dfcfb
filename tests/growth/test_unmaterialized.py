import pytest
import torch
from safetensors.torch import load_file

from solar.config.growth_plan import GrowthPlan, Init, PlanName, WeightDtype
from solar.config.training import Precision
from solar.diagnosis import verify_logits as oracle
from solar.diagnosis.diagnose import diagnose
from solar.errors import ArtifactError
from solar.growth import unmaterialized
from solar.growth.files.verify import Verify
from solar.growth.grow import grow
from solar.growth.unmaterialized import is_unmaterialized, keep_plan, weights
from solar.network.loading import load_model, load_network

IDS_BT = torch.arange(3, 40).reshape(1, -1)
PLANS = {
    "copy": GrowthPlan(PlanName.dus, m=2),
    "mean": GrowthPlan(PlanName.interleave, every=2, init=Init.mean),
    "noise": GrowthPlan(PlanName.dus, m=2, init=Init.noise, noise_std=0.1, seed=3),
    "silent": GrowthPlan(PlanName.slices, slices=[[0, 6], [2, 8]], init=Init.zero_out),
    "half": GrowthPlan(PlanName.dus, m=2, dtype=WeightDtype.bfloat16),
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_weights_are_those_that_would_be_written(plan, tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "written", plan, verify=Verify.none)
    keep_plan(tiny("llama"), tmp_path / "kept", plan)
    written, built = load_file(tmp_path / "written" / "model.safetensors"), weights(tmp_path / "kept")
    assert is_unmaterialized(tmp_path / "kept") and not is_unmaterialized(tmp_path / "written")
    assert not [*(tmp_path / "kept").glob("*.safetensors")]
    assert written.keys() == built.keys() and all(torch.equal(written[name], built[name]) for name in written)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["llama_tied", "mixtral", "qwen3", "llava"])
def test_the_loaded_model_computes_the_same(name, tiny, tmp_path):
    grow(tiny(name), tmp_path / "written", PLANS["copy"], verify=Verify.none)
    keep_plan(tiny(name), tmp_path / "kept", PLANS["copy"])
    written = load_model(tmp_path / "written")
    built = load_model(tmp_path / "kept")
    with torch.no_grad():
        assert torch.equal(built(input_ids=IDS_BT).logits, written(input_ids=IDS_BT).logits)


def test_twins_are_loaded_as_parameters_of_their_own(tiny, tmp_path):
    """Layers 2 and 6 start from the same bytes of the same file; a step for one must not move the other."""
    keep_plan(tiny("llama_tied"), tmp_path / "kept", PLANS["copy"])
    model = load_network(tmp_path / "kept", Precision.fp32)
    first, twin = (model.model.layers[layer].mlp.up_proj.weight for layer in (2, 6))
    assert torch.equal(first, twin)
    before = twin.clone()
    with torch.no_grad():
        first.add_(1.0)
    assert torch.equal(twin, before) and not torch.equal(first, twin)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.usefixtures("in_process")
def test_a_family_no_test_has_grown_is_verified_by_logits_without_being_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(unmaterialized, "default_verification", lambda job: Verify.logits)
    keep_plan(tiny("gemma2"), tmp_path / "kept", PLANS["copy"])
    monkeypatch.setattr(oracle, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="verification failed: logits differ"):
        keep_plan(tiny("gemma2"), tmp_path / "refused", PLANS["copy"])
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_it_is_diagnosed_as_if_it_were_written(tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "written", PLANS["copy"], verify=Verify.none)
    keep_plan(tiny("llama"), tmp_path / "kept", PLANS["copy"])
    candidates = {"dus": GrowthPlan(PlanName.dus, m=3)}
    found = [diagnose(tmp_path / of, [IDS_BT], candidates, tmp_path / "out") for of in ("written", "kept")]
    assert found[0]["base_loss"] == found[1]["base_loss"]
    assert found[0]["plans"] == found[1]["plans"]


def test_growing_a_plan_further_is_refused_with_a_way_out(tiny, tmp_path):
    keep_plan(tiny("llama"), tmp_path / "kept", PLANS["copy"])
    with pytest.raises(ArtifactError, match="holds a plan instead of weights; grow it with materialize: true"):
        grow(tmp_path / "kept", tmp_path / "more", PLANS["copy"])


def test_a_base_that_changed_is_refused(tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "base", GrowthPlan(PlanName.dus, m=4))
    keep_plan(tmp_path / "base", tmp_path / "kept", PLANS["copy"])
    with (tmp_path / "base" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="gone or changed"):
        weights(tmp_path / "kept")


def test_the_folders_may_move_together(tiny, tmp_path):
    (tmp_path / "here").mkdir()
    grow(tiny("llama"), tmp_path / "here" / "base", GrowthPlan(PlanName.dus, m=4))
    keep_plan(tmp_path / "here" / "base", tmp_path / "here" / "kept", PLANS["copy"])
    (tmp_path / "here").rename(tmp_path / "there")
    assert len(weights(tmp_path / "there" / "kept")) == 12 * 9 + 3
