"""A kill at any call into the system leaves a whole artifact or none, and nothing that the next run does not clear."""

from functools import partial
from pathlib import Path

import pytest

from solar.artifacts.known import FILE, Known
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Artifact, Store
from solar.artifacts.tidy import remove_dead_attempts
from tests.faults.crashes import killed_at
from tests.faults.power_loss import Lost, cut_at

ID = "0" * 12


def _build(root: Path) -> Artifact:
    store = Store(root / "artifacts", Known.load(root))
    remove_dead_attempts(store)
    if (found := store.find("sft", ID)) is None:
        folder = store.begin("sft", ID)
        (folder / "model").mkdir(exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "written").touch()
        (store.partial("sft", ID) / "model" / "weights").write_text("w")
        found = store.publish(Manifest("sft", "sft", ID, 1, {}, {}, {}, {}, {}, 0.1))
    store.verify(found, "sft")
    return found


def test_a_kill_at_any_moment_of_building_is_cleared_up_by_the_next_run(tmp_path: Path) -> None:
    """T-F3, T-A3, for the store."""
    call = 0
    while True:
        root = tmp_path / str(call)
        root.mkdir()
        killed = killed_at(call, partial(_build, root))
        folder = root / "artifacts" / f"sft-{ID}"
        if folder.exists():
            assert (folder / "manifest.json").exists() and (folder / "model" / "weights").read_text() == "w"
        artifact = _build(root)
        remove_dead_attempts(Store(root / "artifacts"))
        assert list(artifact.manifest.files) == ["model/weights"]
        assert [path.name for path in (root / "artifacts").iterdir()] == [folder.name], f"killed at call {call}"
        assert {path.name for path in folder.iterdir()} == {"manifest.json", "model"}, f"killed at call {call}"
        # A file of a killed writer is left to it for an hour.
        assert {path.name for path in root.iterdir() if not path.name.startswith(f".{FILE}.")} <= {"artifacts", FILE}
        if not killed:
            break
        call += 1
    assert call > 15


@pytest.mark.parametrize("lost", Lost)
def test_a_power_cut_at_any_moment_of_building_leaves_a_whole_artifact_or_none(tmp_path: Path, lost: Lost) -> None:
    """T-A3, for the store: what was not synced is gone."""
    call, cut = 0, True
    while cut:
        root, after = tmp_path / f"{call}", tmp_path / f"{call}-after"
        (root / "artifacts").mkdir(parents=True)
        cut = cut_at(call, partial(_build, root), root, after, lost)
        store = Store(after / "artifacts")
        if (found := store.find("sft", ID)) is not None:
            store.verify(found, "sft")
        assert found is not None or cut, "it was published, and is gone"
        assert (_build(after).path / "model" / "weights").read_text() == "w"
        call += 1
    assert call > 15


def test_a_claimed_folder_outlives_a_power_cut(tmp_path: Path) -> None:
    """T-A3: so that checkpoints which are saved in it do, too."""
    root, after = tmp_path / "root", tmp_path / "after"
    root.mkdir()
    assert not cut_at(1000, partial(Store(root).begin, "sft", ID), root, after, Lost.everything)
    assert (after / f"sft-{ID}.partial").is_dir()
