"""Stepwise DPO and shared references, as the plan sees them."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from solar.artifacts.store import Store
from solar.config.root import typed
from solar.config.store import register
from solar.errors import ConfigError, PlanError
from solar.plan.checks.check import check
from solar.plan.expansion.expand import expand
from solar.plan.plan import Plan, make_plan
from solar.run import conf_folder


def _plan(root: Path, *overrides: str) -> Plan:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = typed(compose("config", overrides=["+experiment=stepwise_dpo", f"paths.root={root}", *overrides]))
    check(config)
    return make_plan(expand(config), Store(root / "artifacts"))


def test_a_step_starts_from_the_step_before_which_is_its_reference(tmp_path: Path) -> None:
    stages = _plan(tmp_path).stages
    assert "sdpo" not in stages
    for step, before in (("sdpo_1", "sft"), ("sdpo_2", "sdpo_1")):
        assert stages[step].config.model == stages[step].config.reference == before


def test_one_step_is_plain_dpo_by_identity(tmp_path: Path) -> None:
    stages = _plan(tmp_path, "stages.sdpo.parts=1", "stages.sdpo.duration=40 steps").stages
    assert stages["sdpo_1"].id == stages["dpo_a"].id
    assert "sdpo_chunks" not in stages


def test_a_stepwise_stage_is_found_by_its_name(tmp_path: Path) -> None:
    plan = _plan(tmp_path, "until=sdpo", "stages.merge.models=[dpo_a,sdpo]", "+trainer.micro_batch_sizes.sdpo=2")
    assert list(plan.stages)[-1] == "sdpo_2"
    merged = _plan(tmp_path, "stages.merge.models=[dpo_a,sdpo]").stages["merge"].config
    assert merged.models == ["dpo_a", "sdpo_2"]


def test_a_step_may_have_a_strength_and_a_rate_of_its_own(tmp_path: Path) -> None:
    steps = "stages.sdpo.steps=[{share: 0.25}, {share: 0.75, beta: 0.3, lr: 1e-5, duration: 7 steps}]"
    stages = _plan(tmp_path, steps, "stages.sdpo.parts=null").stages
    first, second = stages["sdpo_1"].config, stages["sdpo_2"].config
    assert (first.beta, first.optimizer.lr, first.duration) == (0.1, 5e-4, "20 steps")
    assert (second.beta, second.optimizer.lr, second.duration) == (0.3, 1e-5, "7 steps")
    assert stages["sdpo_chunks"].config.shares == [0.25, 0.75]


def test_changing_the_second_step_leaves_the_first_alone(tmp_path: Path) -> None:
    def ids(beta: float) -> dict[str, str]:
        steps = f"stages.sdpo.steps=[{{}}, {{beta: {beta}}}]"
        return {name: s.id for name, s in _plan(tmp_path, steps, "stages.sdpo.parts=null").stages.items()}

    one, other = ids(0.1), ids(0.2)
    assert {name for name in one if one[name] != other[name]} == {"sdpo_2", "evaluation", "report"}


def test_stages_of_one_reference_and_data_share_one_pass(tmp_path: Path) -> None:
    stages = _plan(tmp_path).stages
    assert {stages[name].config.logps for name in ("dpo_a", "dpo_b", "sdpo_1", "sdpo_chunks")} == {"sft_logps"}
    assert stages["sdpo_2"].config.logps == "sdpo_1_logps"


def test_another_precision_has_a_pass_of_its_own(tmp_path: Path) -> None:
    stages = _plan(tmp_path, "stages.dpo_b.precision=bf16_true").stages
    assert stages["dpo_a"].config.logps != stages["dpo_b"].config.logps


def test_a_base_in_few_bits_has_a_pass_that_rounds_the_reference_alike(tmp_path: Path) -> None:
    stages = _plan(tmp_path, "stages.dpo_b.adapter.rank=4", "stages.dpo_b.adapter.base=nf4").stages
    logps = {name: stages[stages[name].config.logps].config.base for name in ("dpo_a", "dpo_b")}
    assert logps == {"dpo_a": None, "dpo_b": "nf4"}


def test_a_sweep_over_beta_changes_no_pass(tmp_path: Path) -> None:
    ids = {_plan(tmp_path, f"stages.dpo_a.beta={beta}").stages["sft_logps"].id for beta in (0.05, 0.1, 0.5)}
    assert len(ids) == 1


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_a_loss_without_a_reference_asks_for_no_pass(tmp_path: Path, loss: str) -> None:
    assert _plan(tmp_path, f"stages.dpo_a.loss={loss}").stages["dpo_a"].config.logps is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.sdpo.steps=[{},{}]"], "expected either steps or parts"),
        (["stages.sdpo.parts=null"], "expected either steps or parts"),
        (["stages.sdpo.parts=null", "stages.sdpo.steps=[{share: 0.5},{share: 0.6}]"], "1 in sum"),
        (["stages.sdpo.chunk_by=sources"], "expected names of sources"),
    ],
)
def test_steps_that_make_no_sense_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"stages\.sdpo\.steps.*{message}"):
        _plan(tmp_path, *overrides)


def test_a_stage_that_has_the_name_of_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"stages\.sdpo: makes a stage 'sdpo_1', but there is another of that name"):
        _plan(tmp_path, "+stage@stages.sdpo_1=dpo", "stages.sdpo_1.duration=1 steps", *_NEEDED)


_NEEDED = ["stages.sdpo_1.global_batch_size=16", "stages.sdpo_1.optimizer.lr=0.001"]


def test_data_that_are_no_pairs_are_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"stages\.dpo_a\.data: 'sft_data' prepares instruct data, expected preferenc"
    ):
        _plan(tmp_path, "stages.dpo_a.data=sft_data")


def test_steps_by_accuracy_are_one_for_each_source_or_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.sdpo\.steps: found 2 with chunk_by accuracy, .* the 1 of dpo_data"):
        _plan(tmp_path, "stages.sdpo.chunk_by=accuracy")


def test_margins_per_token_make_chunks_of_their_own(tmp_path: Path) -> None:
    ids = {by: _plan(tmp_path, f"stages.sdpo.chunk_by={by}").stages for by in ("margin", "margin_per_token")}
    assert ids["margin"]["sdpo_chunks"].id != ids["margin_per_token"]["sdpo_chunks"].id
    assert ids["margin_per_token"]["sdpo_1"].config.chunks == "sdpo_chunks"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stages.merge.models=[dpo_a,base]"],
            r"stages\.merge: 'dpo_a' has 12 layers, 'base' has 8; only models of one",
        ),
        (
            ["stages.merge.method=ties", "stages.merge.base=base", "stages.merge.density=0.5"],
            r"stages\.merge: 'dpo_a' has 12 layers, 'base' has 8",
        ),
        (
            ["+stage@stages.soup=soup", "stages.soup.models=[dpo_a,init]", "stages.soup.data=sft_data"],
            r"stages\.soup: 'dpo_a' has 12 layers, 'init' has 8",
        ),
    ],
)
def test_models_of_different_shapes_are_not_merged_and_that_is_known_before_work(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        _plan(tmp_path, *overrides)
