"""An id says what is computed: nothing more, nothing less."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from solar.artifacts.store import Store
from solar.config.base import StageConfig
from solar.config.data import (
    DecontaminateConfig,
    Deduplicate,
    Format,
    OnError,
    Packing,
    PrepareDataConfig,
    SourceConfig,
    SwitchConfig,
    Task,
)
from solar.config.growth import UpscaleConfig
from solar.config.growth_plan import PlanName
from solar.config.kinds import STAGES
from solar.config.links import redirect, rewrite
from solar.config.merging import MergeConfig, MergeMethod
from solar.config.model import ImportModelConfig
from solar.config.root import SolarConfig, TrainerConfig, typed
from solar.config.store import register
from solar.config.synthesis import SynthesizeConfig
from solar.config.training import AdapterConfig, SftConfig
from solar.errors import ConfigError
from solar.plan.digests import Digests
from solar.plan.expansion.expand import expand
from solar.plan.facts import model_facts
from solar.plan.identity import batches_that_count, canonical_json, identity
from solar.plan.plan import make_plan
from solar.run import conf_folder


def _config(root: Path, *overrides: str) -> SolarConfig:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return typed(compose("config", overrides=["+experiment=quickstart", f"paths.root={root}", *overrides]))


def _ids(root: Path, *overrides: str) -> dict[str, str]:
    plan = make_plan(expand(_config(root, *overrides)), Store(root / "artifacts"))
    return {name: stage.id for name, stage in plan.stages.items()}


def test_beta_of_one_dpo_stage_changes_that_stage_and_what_reads_it(tmp_path: Path) -> None:
    before, after = _ids(tmp_path), _ids(tmp_path, "stages.dpo_a.beta=0.2")
    assert {name for name in before if before[name] != after[name]} == {"dpo_a", "merge", "evaluation", "report"}


def test_m_leaves_everything_upstream_of_the_growth_alone(tmp_path: Path) -> None:
    before, after = _ids(tmp_path), _ids(tmp_path, "stages.upscale.m=1")
    kept = {name for name in before if before[name] == after[name]}
    assert kept == {"docs", "tokenizer", "pretrain_data", "init", "base", "diagnosis", "sft_data", "dpo_data"}


def test_where_and_how_it_runs_does_not_matter(tmp_path: Path) -> None:
    elsewhere = _ids(
        tmp_path / "other", "trainer.micro_batch_size=4", "trainer.num_workers=2", "logger=none", "name=again"
    )
    assert _ids(tmp_path) == elsewhere


def test_the_name_of_a_stage_does_not_matter(tmp_path: Path) -> None:
    config = _config(tmp_path)
    renamed = copy.deepcopy(config)
    renamed.stages["corpus"] = renamed.stages.pop("docs")
    for stage in renamed.stages.values():
        if getattr(stage, "text", None) == "docs":
            stage.text = "corpus"
    for name in ("pretrain_data", "sft_data", "dpo_data"):
        renamed.stages[name].sources["docs"].stage = "corpus"
    renamed.stages["evaluation"].choices = "corpus"
    store = Store(tmp_path / "artifacts")
    assert make_plan(expand(renamed), store).stages["sft"].id == make_plan(expand(config), store).stages["sft"].id


def test_the_name_of_a_model_matters_only_to_tables_that_show_it(tmp_path: Path) -> None:
    config = _config(tmp_path)
    renamed = copy.deepcopy(config)
    renamed.stages = {"healed" if name == "pretrain" else name: stage for name, stage in renamed.stages.items()}
    redirect(renamed.stages, {"pretrain": "healed"})
    store = Store(tmp_path / "artifacts")
    before, after = (make_plan(expand(each), store).stages for each in (config, renamed))
    assert before["pretrain"].id == after["healed"].id
    changed = {name for name in before if name != "pretrain" and before[name].id != after[name].id}
    assert changed == {"evaluation", "report"}


def test_ids_are_the_same_in_every_process_and_hash_seed(tmp_path: Path) -> None:
    """T-G1."""
    command = [sys.executable, "-m", "solar.run", "dry_run=true", f"paths.root={tmp_path}"]
    plans = [
        subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("0", "1", "12345")
    ]
    assert plans[0] == plans[1] == plans[2]
    for own_id in _ids(tmp_path).values():
        assert own_id in plans[0]


def test_a_file_is_known_by_its_content_not_its_name_or_time(tmp_path: Path) -> None:
    """T-C6."""
    digests = Digests(tmp_path / "memory.json")
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text("same")
    second.write_text("same")
    assert digests.of(first, "key") == digests.of(second, "key")
    second.write_text("else")
    assert digests.of(first, "key") != digests.of(second, "key")
    os.utime(first, (1, 1))
    assert digests.of(first, "key") == Digests(tmp_path / "none.json").of(first, "key")


def test_a_folder_is_known_by_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    digests = Digests(tmp_path / "memory.json")
    for name, files in {"x": {"a": "1", "b": "2"}, "y": {"a": "1", "b": "2"}, "z": {"a": "2", "b": "1"}}.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert digests.of(tmp_path / "x", "key") == digests.of(tmp_path / "y", "key") != digests.of(tmp_path / "z", "key")


def test_a_source_is_known_by_what_is_read_of_it_and_by_nothing_else(tmp_path: Path) -> None:
    digests, folder = Digests(tmp_path / "memory.json"), tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text("one")
    (folder / "b.jsonl").write_text("two")
    before = digests.of_source(folder, "key")
    for name in (".hidden.jsonl", "README.md", "notes.cfg", "dataset_info.json"):
        (folder / name).write_text("not read")
    assert digests.of_source(folder, "key") == before == digests.of_source(folder / "*.jsonl", "key")
    (folder / "c.jsonl").write_text("three")
    assert digests.of_source(folder, "key") != before == digests.of_source(folder / "[ab]**", "key")


def test_the_kind_of_a_source_file_counts_because_it_is_read_another_way(tmp_path: Path) -> None:
    digests = Digests(tmp_path / "memory.json")
    for name in ("a.jsonl", "b.jsonl", "a.txt"):
        (tmp_path / name).write_text('{"text": "x"}')
    rows, renamed, text = (digests.of_source(tmp_path / name, "key") for name in ("a.jsonl", "b.jsonl", "a.txt"))
    assert rows == renamed != text


def test_remembered_digests_are_not_trusted_after_a_change(tmp_path: Path) -> None:
    """T-C6."""
    memory, file = tmp_path / "memory.json", tmp_path / "data.txt"
    file.write_text("one")
    digests = Digests.load(memory)
    before = digests.of(file, "key")
    digests.save()
    file.write_text("two")
    assert Digests.load(memory).of(file, "key") != before


@pytest.mark.parametrize("damage", ["digit", "no hash", "no list", "[]", "{", "null"])
def test_a_damaged_memory_of_digests_changes_no_identity(tmp_path: Path, damage: str) -> None:
    memory, file = tmp_path / "memory.json", tmp_path / "data.txt"
    file.write_text("one")
    digests = Digests.load(memory)
    right = digests.of(file, "key")
    digests.save()
    assert Digests.load(memory).known == digests.known != {}
    whole, name = memory.read_text(), str(file)
    wrong = {
        "digit": whole.replace(right[:8], f"{int(right[:8], 16) ^ 1:08x}"),
        "no hash": json.dumps(digests.known | {name: [*digests.known[name][:4], "0" * 64]}),
        "no list": json.dumps({name: 5}),
    }
    memory.write_text(wrong.get(damage, damage))
    assert memory.read_text() != whole
    assert Digests.load(memory).of(file, "key") == right


def test_nothing_at_a_path_is_an_error_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\.a\.path: found nothing at .*gone"):
        Digests(tmp_path / "memory.json").of(tmp_path / "gone", "sources.a.path")
    (tmp_path / "a.jsonl.xz").write_text("x")
    with pytest.raises(
        ConfigError, match=r"\.path: found a file of kind \.jsonl\.xz at .*, of \.jsonl.*also \.gz, \.zst"
    ):
        Digests(tmp_path / "memory.json").of_source(tmp_path / "a.jsonl.xz", "sources.a.path")
    for gone in ("gone", "gone*", "a**"):
        with pytest.raises(ConfigError, match=r"sources\.a\.path: found nothing to read at .*expected a file"):
            Digests(tmp_path / "memory.json").of_source(tmp_path / gone, "sources.a.path")


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({"a": object()})
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
        canonical_json({"a": float("nan")})


OTHERWISE = {
    "kind": "sft", "tokenizer": "other", "task": Task.pretrain, "template": "alpaca", "sequence_length": 128,
    "packing": Packing.none, "held_out_fraction": 0.1, "seed": 1, "temperature": 2.0, "on_error": OnError["skip"],
    "switches": [SwitchConfig(5, {"a": 1.0})], "deduplicate": Deduplicate.exact, "max_bad_rows": 7,
    "decontaminate": DecontaminateConfig({"exam": SourceConfig(path="exam.jsonl")}),
}  # fmt: skip
SOURCE_OTHERWISE = {
    "stage": "other", "file": "other.jsonl", "path": "exam.jsonl", "hub": "some/one", "revision": "a" * 40,
    "subset": "en", "split": "test", "format": Format.alpaca, "columns": {"completion": "answer"}, "weight": 2.0,
    "share": 0.5, "max_epochs": 2.0, "max_samples": 9, "keep": {"kind": "a"}, "drop_tasks": ["arc"],
    "task_index": "some/one@" + "a" * 40, "task_index_path": "exam.jsonl",
}  # fmt: skip


def _prepared_as(digests: Digests, changed: dict[str, object], of_source: dict[str, object]) -> str:
    source = SourceConfig(path="rows.jsonl", format=Format.prompt_completion)
    for name, value in of_source.items():
        setattr(source, name, value)
    settings = {"kind": "prepare_data", "tokenizer": "tokenizer", "task": Task.instruct, "sequence_length": 64}
    settings |= {"packing": Packing.best_fit, "held_out_fraction": 0.0, "seed": 0, "sources": {"a": source}} | changed
    return identity(PrepareDataConfig(**settings), {"tokenizer": "0" * 12, "other": "1" * 12}, digests)


def test_every_word_about_data_is_part_of_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, tokenizer, template, each parameter, and the version of the code (T-C6)."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("{}")
    Path("exam.jsonl").write_text("[]")
    digests = Digests(tmp_path / "memory.json")
    assert set(OTHERWISE) | {"sources"} == {item.name for item in fields(PrepareDataConfig)}
    assert set(SOURCE_OTHERWISE) == {item.name for item in fields(SourceConfig)}
    ids = [_prepared_as(digests, {}, {})]
    ids += [_prepared_as(digests, {name: value}, {}) for name, value in OTHERWISE.items()]
    ids += [_prepared_as(digests, {}, {name: value}) for name, value in SOURCE_OTHERWISE.items()]
    newer = replace(STAGES["prepare_data"], version=STAGES["prepare_data"].version + 1)
    with monkeypatch.context() as patch:
        patch.setitem(STAGES, "prepare_data", newer)
        ids.append(_prepared_as(digests, {}, {}))
    assert len(set(ids)) == len(ids) == 33
    Path("moved.jsonl").write_text("{}")
    assert _prepared_as(digests, {}, {"path": "moved.jsonl"}) == ids[0] == _prepared_as(digests, {}, {})


def test_the_order_of_sources_counts_and_that_of_their_columns_does_not(tmp_path: Path) -> None:
    """Of duplicates, the first source's stays."""
    digests = Digests(tmp_path / "memory.json")
    sources = {
        name: SourceConfig(hub=f"some/{name}", revision="a" * 40, format=Format.prompt_completion) for name in "ab"
    }
    turned = dict(reversed(sources.items()))
    first, other = (_prepared_as(digests, {"sources": order}, {}) for order in (sources, turned))
    assert first != other
    columns = {"prompt": "q", "completion": "a"}
    (tmp_path / "rows.jsonl").write_text("{}")
    ids = [
        _prepared_as(digests, {}, {"path": str(tmp_path / "rows.jsonl"), "columns": order})
        for order in (columns, dict(reversed(columns.items())))
    ]
    assert ids[0] == ids[1]


def test_the_pace_of_requests_to_a_server_is_no_part_of_the_id(tmp_path: Path) -> None:
    digests = Digests(tmp_path / "memory.json")
    settings = {"kind": "synthesize", "base_url": "http://here/v1", "server_model": "m", "questions_per_seed": 1}
    settings |= {"answers_per_question": 1, "temperature": 0.0, "max_new_tokens": 9, "seed": 0}
    seeds = SourceConfig(hub="some/one", revision="a" * 40, format=Format.metamath)
    slow, fast, other = (
        identity(SynthesizeConfig(**settings | changed, seeds=seeds), {}, digests)
        for changed in ({"connections": 1, "requests_per_minute": 9}, {"connections": 64}, {"seed": 1})
    )
    assert slow == fast != other


def test_a_null_inside_a_list_of_settings_is_not_hashed(tmp_path: Path) -> None:
    @dataclass
    class Entry:
        share: float
        later: str | None = None

    @dataclass
    class Listed(StageConfig):
        entries: list[Entry] = field(default_factory=list)

    assert rewrite(Listed("any", [Entry(0.5), Entry(0.5, "x")]), lambda pointer: pointer.value) == {
        "kind": "any",
        "entries": [{"share": 0.5}, {"share": 0.5, "later": "x"}],
    }


def test_hidden_files_and_folders_are_no_part_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    before = Digests(tmp_path / "memory.json").of(tmp_path / "model", "key")
    for name in (".cache/huggingface/download/config.json.metadata", ".git/HEAD", "sub/.ipynb_checkpoints/a"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True)
        path.write_text("today")
    assert Digests(tmp_path / "memory.json").of(tmp_path / "model", "key") == before


@pytest.mark.parametrize(("changed", "counts"), [({}, False), ({"adapter": AdapterConfig(rank=4, dropout=0.1)}, True)])
def test_how_the_batch_is_cut_counts_where_dropout_draws_a_micro_batch_at_a_time(
    tmp_path: Path, changed: dict[str, object], counts: bool
) -> None:
    stage = SftConfig(kind="sft", model="base", data="tokens", global_batch_size=16, duration="1 steps", **changed)
    cut = [
        batches_that_count("sft", stage, {}, TrainerConfig(devices=devices, num_nodes=1, micro_batch_size=size))
        for devices, size in ((1, 4), (1, 8), (2, 4))
    ]
    expected = [{"micro_batch": size, "replicas": devices} for devices, size in ((1, 4), (1, 8), (2, 4))]
    assert cut == (expected if counts else [None, None, None])
    ids = {identity(stage, {"base": "0", "tokens": "1"}, Digests(tmp_path / "m.json"), batches) for batches in cut}
    assert len(ids) == (3 if counts else 1)


def test_a_base_with_a_balance_loss_or_dropout_makes_the_batches_of_every_descendant_count(tmp_path: Path) -> None:
    for name, config in {"moe": {"output_router_logits": True}, "gpt2": {"attn_pdrop": 0.1}, "llama": {}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 8}))
        stages = {
            "base": ImportModelConfig(kind="import_model", path=str(tmp_path / name)),
            "up": UpscaleConfig(kind="upscale", model="base", plan=PlanName.dus, m=2),
            "heal": SftConfig(kind="sft", model="up", data="tokens", global_batch_size=8, duration="1 steps"),
            "mean": MergeConfig(kind="merge", models=["heal"], method=MergeMethod.average),
        }
        facts = model_facts(stages)
        assert [facts[stage].depends_on_batches for stage in stages] == [name != "llama"] * 4
        trainer = TrainerConfig(devices=1, num_nodes=1, micro_batch_size=4)
        counted = batches_that_count("heal", stages["heal"], facts, trainer)
        assert counted == (None if name == "llama" else {"micro_batch": 4, "replicas": 1})
