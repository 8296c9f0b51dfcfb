"""What a run leaves of its configuration is enough to repeat it, and resolves nothing when it is read."""

import ast
import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from solar.artifacts.last_run import last_run
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Store
from solar.config.kinds import STAGES
from solar.config.root import SolarConfig, typed
from solar.config.store import register
from solar.engine.context import OVERRIDES
from solar.engine.record import open_run
from solar.plan.expansion.expand import expand
from solar.plan.plan import Plan, make_plan
from solar.report.card import write_card
from solar.report.command import command
from solar.report.entries import Entry, Run
from solar.run import conf_folder

WORDS = ["+experiment=quickstart", "stages.dpo_a.beta=0.25", "stages.sft.duration=7 steps", "seed=5", "logger=none"]


def _compose(words: list[str]) -> DictConfig:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("config", overrides=words)


def _plan(config: SolarConfig) -> Plan:
    return make_plan(expand(config), Store(Path(config.paths.root) / "artifacts"))


def _ids(plan: Plan) -> dict[str, str]:
    return {name: stage.id for name, stage in plan.stages.items()}


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The folder of a run, and the ids of its stages."""
    words = [*WORDS, f"paths.root={tmp_path}"]
    composed = _compose(words)
    config = typed(composed)
    plan = _plan(config)
    return open_run(config, composed, plan, words).folder, _ids(plan)


def test_the_stored_configuration_gives_the_ids_of_the_run(stored: tuple[Path, dict[str, str]]) -> None:
    """T-D5. Every value is in `config.yaml`, whatever the recipes say by then; schemas give types to the values."""
    folder, ids = stored
    loaded = OmegaConf.load(folder / "config.yaml")
    assert isinstance(loaded, DictConfig)
    again = OmegaConf.structured(SolarConfig)
    for name, stage in loaded.pop("stages").items():
        again.stages[str(name)] = OmegaConf.merge(
            OmegaConf.structured(STAGES[stage.kind].config(kind=stage.kind)), stage
        )
    assert _ids(_plan(typed(OmegaConf.merge(again, loaded)))) == ids
    assert _ids(_plan(typed(_compose([*WORDS[:-1], "stages.dpo_a.beta=0.3"])))) != ids


def test_the_command_on_a_report_gives_the_ids_of_the_run(stored: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """T-D5."""
    folder, ids = stored
    words = shlex.split(command("quickstart", (folder / OVERRIDES).read_text(encoding="utf-8").splitlines()))
    assert words[:3] == ["python", "-m", "solar.run"]
    assert _ids(_plan(typed(_compose([*words[3:], f"paths.root={tmp_path}"])))) == ids


def test_no_module_reads_a_configuration_back() -> None:
    """T-E7. YAML is read by Hydra alone, on the command line's behalf; records are JSON, which resolves nothing."""
    readers = {("OmegaConf", "load"), ("OmegaConf", "create"), ("yaml", "load"), ("yaml", "safe_load")}
    found = [
        f"{path}: {node.value.id}.{node.attr}"
        for path in (Path(__file__).parents[2] / "solar").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if (node.value.id, node.attr) in readers
    ]
    assert found == []


def test_references_in_a_record_stay_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-E7. The manifest, the record of a run and the card of a stranger's model name a variable of the reader."""
    monkeypatch.setenv("READER_PHRASE", "planted-phrase")
    asked = "${oc.env:READER_PHRASE}"
    model = tmp_path / "artifacts/sft-000000000000"
    (model / "model").mkdir(parents=True)
    (model / "model/config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2}))
    config = {"model": asked, "duration": asked}
    Manifest("sft", "sft", "0" * 12, 1, config, {}, {"note": asked}, {}, {}, 0.1).write(model)
    run = tmp_path / "runs/x/1"
    run.mkdir(parents=True)
    (run / "artifacts.json").write_text(json.dumps({"sft": asked}))
    latest = last_run(tmp_path)
    assert latest is not None and latest.folders["sft"].name == asked
    manifest = json.loads((model / "manifest.json").read_text())
    entry = Entry("sft", "sft", model, manifest)
    write_card(entry, Run([entry]), tmp_path / "card.md")
    card = (tmp_path / "card.md").read_text()
    assert Manifest.read(model).config == config and "planted-phrase" not in card
