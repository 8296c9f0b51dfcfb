"""The record of the last run, and the artifacts that commands are given by name."""

import json
import os
from pathlib import Path

import pytest

from solar.artifacts.damage import refuse_damaged
from solar.artifacts.last_run import last_run
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Store
from solar.errors import ArtifactError


def _record(root: Path) -> Path:
    folder = root / "runs" / "a" / "1"
    folder.mkdir(parents=True)
    return folder / "artifacts.json"


@pytest.mark.parametrize("content", ["", "[]", '{"sft": "../../etc"}', '{"sft": "/etc"}', '{"sft": 3}', "[" * 100_000])
def test_a_record_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    _record(tmp_path).write_text(content)
    with pytest.raises(ArtifactError, match=r"artifacts\.json: .*; delete the folder of that run") as refusal:
        last_run(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_pipe_in_place_of_the_record_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(_record(tmp_path))
    with pytest.raises(ArtifactError, match=r"cannot be read \(is a pipe, expected a plain file\)"):
        last_run(tmp_path)


def test_the_folders_of_the_last_run_are_those_of_its_record(tmp_path: Path) -> None:
    _record(tmp_path).write_text(json.dumps({"sft": "sft-1"}))
    assert last_run(tmp_path).folders == {"sft": tmp_path / "artifacts" / "sft-1"}


def _artifact(root: Path) -> Path:
    store = Store(root / "artifacts")
    model = store.begin("sft", "0" * 12) / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return store.publish(Manifest("sft", "sft", "0" * 12, 1, {}, {}, {}, {}, {}, 0.1)).path


@pytest.mark.parametrize("given", [".", "model"])
def test_a_command_refuses_a_damaged_artifact_by_its_folder_or_its_model(tmp_path: Path, given: str) -> None:
    folder = _artifact(tmp_path)
    refuse_damaged(folder / given)
    (folder / "model" / "config.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"model/config\.json: its content was changed"):
        refuse_damaged(folder / given)


def test_a_model_from_elsewhere_passes(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("of another program")
    refuse_damaged(tmp_path)
    refuse_damaged(tmp_path / "model")
