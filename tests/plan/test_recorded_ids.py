"""Moving code must not change what an artifact is called: these ids were recorded, and a store keeps what it holds.

Raise a kind's `version` and record anew only where the same configuration now makes something else.
"""

import platform
from importlib import metadata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from solar.artifacts.store import Store
from solar.config.root import typed
from solar.config.store import register
from solar.plan.expansion.expand import expand
from solar.plan.plan import make_plan
from solar.run import conf_folder

RECORDED = {
    "quickstart": {
        "docs": "3bdcc9a43a40",
        "tokenizer": "529faf6d34a4",
        "pretrain_data": "1439244fa650",
        "init": "0efdc1c5984b",
        "base": "e0b88026fd04",
        "diagnosis": "3632214b04f8",
        "upscale": "04a302cf4518",
        "pretrain": "534e10256bd8",
        "sft_data": "cc46f5106100",
        "sft": "37786cb12ce6",
        "dpo_data": "cf6546423110",
        "sft_logps": "251196af635b",
        "dpo_a": "6c6b3504778a",
        "dpo_b": "104e6249dce1",
        "merge": "34673847a4e7",
        "evaluation": "98a17409ea59",
        "report": "83a27f21cc39",
    },
    "dus_10b": {
        "base": "c83788ccf4bf",
        "upscale": "0dbb3f8625ee",
        "pretrain_data": "c8935314178c",
        "pretrain": "953f9b8111ce",
        "sft_v3_data": "4aae8c01390c",
        "sft_v3": "4786a43d0a30",
        "sft_v4_data": "1351ef0e1e0f",
        "sft_v4": "2337ffe8e222",
        "sft_v3_v4": "c2c94d1ffd8c",
        "dpo_data": "1753335666a3",
        "sft_v3_logps": "f81057f1356a",
        "candidate_1": "0e1f941ede9f",
        "sft_v3_v4_logps": "edd14be09bba",
        "candidate_2": "c07cff9575ed",
        "instruct": "1f5bbbfedaf7",
        "h6": "ccba33a4f0b2",
        "report": "d71793677037",
    },
    "smollm2_135m": {
        "docs": "2fba36299344",
        "base": "ed97370ebe08",
        "pretrain_data": "0ce92b5271dc",
        "upscale": "93885ecf6612",
        "pretrain": "0ca7bf9d13f4",
        "evaluation": "100248cc768a",
        "report": "c6a9eb7f8494",
    },
}


@pytest.mark.parametrize("experiment", RECORDED)
def test_an_experiment_keeps_the_ids_that_were_recorded(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.11.7")
    monkeypatch.setattr(metadata, "version", lambda name: f"1.0 of {name}")
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = typed(compose("config", overrides=[f"+experiment={experiment}", f"paths.root={tmp_path}"]))
    plan = make_plan(expand(config), Store(tmp_path / "artifacts"))
    assert {name: stage.id for name, stage in plan.stages.items()} == RECORDED[experiment]
