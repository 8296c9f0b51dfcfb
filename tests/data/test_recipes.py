"""The data of the shipped experiments, as composed."""

import pytest
from hydra import compose, initialize_config_dir

from solar.config.data import Format
from solar.config.root import SolarConfig, typed
from solar.config.store import register
from solar.errors import ConfigError
from solar.plan.checks.check import check
from solar.run import conf_folder


def _experiment(name: str, *overrides: str) -> SolarConfig:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return typed(compose("config", overrides=[f"+experiment={name}", *overrides]))


def test_one_experiment_makes_the_mathematics_that_the_other_replaces():
    replaced = _experiment("dus_10b").stages
    assert replaced["sft_v4_data"].sources["math"].keep == {"type": "MATH_"} and "math" not in replaced
    model = ("stages.math.seeds.path=MATH", "stages.math.base_url=http://x/v1", "stages.math.server_model=y")
    config = _experiment("dus_10b_math", *model)
    check(config)
    for name in ("sft_v3_data", "sft_v4_data"):
        source = config.stages[name].sources["math"]
        assert (source.stage, source.file, source.max_samples) == ("math", "instruct.jsonl", 52_000)
        assert source.hub is None and source.keep == {}
    pairs = config.stages["dpo_data"].sources["math"]
    assert (pairs.file, pairs.format, pairs.max_samples) == ("alignment.jsonl", Format.preference, 20_100)


def test_a_source_that_the_pairs_do_not_have_is_told_before_any_work():
    config = _experiment("quickstart", "stages.dpo_a.sources=[dosc]")
    with pytest.raises(
        ConfigError, match=r"stages.dpo_a.sources: found 'dosc', .*stages.dpo_data; did you mean 'docs'"
    ):
        check(config)


def test_sft_v3_leaves_out_the_ten_tasks_and_v4_all_of_openorca():
    stages = _experiment("dus_10b").stages
    assert len(stages["sft_v3_data"].sources["open_orca"].drop_tasks) == 10
    assert "open_orca" not in stages["sft_v4_data"].sources
