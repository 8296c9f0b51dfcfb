"""Moving code must not change what an artifact is called: these ids were recorded, and a store keeps what it holds.

Raise a kind's `version` and record anew only where the same configuration now makes something else.
"""

import platform
from importlib import metadata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from solar.artifacts.store import Store
from solar.config.data import Format, PrepareDataConfig, SourceConfig
from solar.config.root import typed
from solar.config.store import register
from solar.plan.expansion.expand import expand
from solar.plan.plan import make_plan
from solar.run import conf_folder

RECORDED = {
    "quickstart": {
        "docs": "3bdcc9a43a40",
        "tokenizer": "529faf6d34a4",
        "pretrain_data": "95a77afee096",
        "init": "0efdc1c5984b",
        "base": "7aff885851b2",
        "diagnosis": "1fefedbfa1a8",
        "upscale": "efa549a36465",
        "pretrain": "6e05ed355b43",
        "sft_data": "6ac21b999500",
        "sft": "31b6fe256d7b",
        "dpo_data": "4a29650c89df",
        "sft_logps": "81b767092c1b",
        "dpo_a": "948a30b657d5",
        "dpo_b": "fcaae0bba30c",
        "merge": "094dff4ffa9a",
        "evaluation": "70908b8900f4",
        "report": "a8aecd9613d1",
    },
    "dus_10b": {
        "base": "c83788ccf4bf",
        "upscale": "0dbb3f8625ee",
        "pretrain_data": "a3a99499df31",
        "pretrain": "97b61f328642",
        "sft_v3_data": "e581414f860d",
        "sft_v3": "a5d13bbf62dc",
        "sft_v4_data": "b90fa543f864",
        "sft_v4": "c9c605dd1871",
        "sft_v3_v4": "ee644302442a",
        "dpo_data": "08f6cab4b710",
        "sft_v3_logps": "a35c7cd30231",
        "candidate_1": "21060b71df89",
        "sft_v3_v4_logps": "7ac77a43db69",
        "candidate_2": "1bbc2ba2d51c",
        "instruct": "3ef955badaad",
        "h6": "462b4e773bd1",
        "report": "ea24371d47b9",
    },
    "smollm2_135m": {
        "docs": "2fba36299344",
        "base": "ed97370ebe08",
        "pretrain_data": "8c03598fd097",
        "upscale": "93885ecf6612",
        "pretrain": "afce183745d7",
        "evaluation": "1b26f3a1581e",
        "report": "4a690eaed111",
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


def test_only_data_that_the_code_now_reads_otherwise_gets_another_id() -> None:
    rows = {"rows": SourceConfig(hub="a/b", revision="c" * 40, format=Format.alpaca)}
    unchanged = PrepareDataConfig(kind="prepare_data", sources=rows)
    assert unchanged.code_revision() is None
    local = {"rows": SourceConfig(path="rows.jsonl", format=Format.alpaca)}  # rows of other splits are left out now
    assert PrepareDataConfig(kind="prepare_data", sources=local).code_revision() == 1
    messages = {"rows": SourceConfig(hub="a/b", revision="c" * 40, format=Format.messages)}  # their fields count now
    assert PrepareDataConfig(kind="prepare_data", sources=messages).code_revision() == 1
