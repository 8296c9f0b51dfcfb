"""Values out of range are refused before anything is planned."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from solar.config.duration import Duration, Unit
from solar.config.root import typed
from solar.config.store import register
from solar.errors import ConfigError
from solar.plan.checks.check import check
from solar.run import conf_folder

REFUSED = {
    "stages.init.seed=-1": r"stages\.init\.seed: found -1, expected 0 to below 2\^32",
    "stages.sft.seed=4294967296": r"stages\.sft\.seed: found 4294967296, expected 0 to below 2\^32",
    "stages.init.initializer_range=1e30": r"stages\.init\.initializer_range: found 1e\+30, expected more than 0, at",
    "trainer.threads=1000000": r"trainer\.threads: found 1000000, expected 1 to 1024 or null",
    "trainer.num_workers=1000000": r"trainer\.num_workers: found 1000000, expected 0 to 1024",
    "stages.pretrain_data.sources.docs.file=../../other.jsonl": (
        r"stages\.pretrain_data\.sources\.docs\.file: found '\.\./\.\./other\.jsonl', expected a name inside the folder"
    ),
    "stages.pretrain_data.sources.docs.file=/etc/passwd": (
        r"stages\.pretrain_data\.sources\.docs\.file: found '/etc/passwd', expected a name inside the folder"
    ),
}
STEPS = {
    "[{duration: long},{}]": r"stages\.sdpo\.steps\.0\.duration: found 'long', expected a number and a unit",
    "[{},{duration: 2k tokens}]": r"stages\.sdpo\.steps\.1\.duration: found '2k tokens', expected steps or epochs",
}


def _check(*overrides: str) -> None:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        check(typed(compose("config", overrides=list(overrides))))


@pytest.mark.parametrize("override", REFUSED)
def test_a_value_out_of_range_is_refused(override: str) -> None:
    """T-D2."""
    with pytest.raises(ConfigError, match=rf"^{REFUSED[override]}"):
        _check("+experiment=quickstart", override)


@pytest.mark.parametrize("steps", STEPS)
def test_the_duration_of_a_step_is_checked(steps: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{STEPS[steps]}"):
        _check("+experiment=stepwise_dpo", "stages.sdpo.parts=null", f"stages.sdpo.steps={steps}")


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("200k tokens", 200_000, "tokens"), ("2M steps", 2_000_000, "steps"), ("0.5 epochs", 0.5, "epochs")],
)
def test_a_duration_is_an_amount_in_thousands_or_millions_and_a_unit(text: str, amount: float, unit: str) -> None:
    assert Duration.parse(text) == Duration(amount, Unit(unit))


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    register()
    source = "stages.pretrain_data.sources.docs={stage: null, path: '~/rows/*.jsonl', format: text}"
    overrides = ["+experiment=quickstart", "paths.root='~/out'", source]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = typed(compose("config", overrides=overrides))
    assert config.paths.root == str(tmp_path / "out")
    assert config.stages["pretrain_data"].sources["docs"].path == f"{tmp_path}/rows/*.jsonl"


def test_a_configuration_without_the_schema_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"which --config-path takes away; add a folder of yours with --config-dir"):
        typed(OmegaConf.create({"name": "x"}))
