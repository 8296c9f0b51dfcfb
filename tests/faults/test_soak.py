"""The soak in its short form, and what it would notice."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Store
from solar.errors import ArtifactError
from tests.faults.soak.__main__ import soak
from tests.faults.soak.at_rest import AT_REST, Harm
from tests.faults.soak.clock import CALM_READINGS, jumping
from tests.faults.soak.hashes import differences, hashes
from tests.faults.soak.judge import faults_of
from tests.faults.soak.running import Fault
from tests.faults.soak.runs import Run, named_folder

ID = "0" * 12
BASE = Path(f"/store/artifacts/base-{ID}")
REFUSED = f"error: base: {BASE}/a: is missing, expected 1 bytes; delete {BASE} to make it again\n"
TRACEBACK = "Traceback (most recent call last):\n  File ...\nKeyError: 'a'\n"
DAMAGE = Harm("base: deleted a", BASE)
FULL = Fault(lambda scene, draw: "filled", frozenset({1}), "No space left")


@pytest.mark.slow
def test_everything_finishes_with_the_calm_runs_bytes_after_faults(tmp_path: Path, capsys) -> None:
    """T-F1, T-A3, T-A5, T-A6, T-A7, in turns that a seed chooses; `make soak` goes on for half an hour."""
    with TemporaryDirectory(prefix="solar-soak-") as name:  # not below `tmp_path`, which other users may not enter
        place = Path(name)
        place.chmod(0o755)
        assert soak(1.25, 5, tmp_path / "log.jsonl", place) == 0, capsys.readouterr().out
    *rounds, end = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert any(line["done"] for line in rounds) and end["findings"] == []


def _ended(tmp_path: Path, code: int, err: str) -> Run:
    """A run that ended with this exit code and standard error."""
    process = subprocess.Popen([sys.executable, "-c", f"import os; os._exit({code})"])
    process.wait()
    (tmp_path / "out").write_text("")
    (tmp_path / "err").write_text(err)
    return Run(process, tmp_path / "out", tmp_path / "err", [])


@pytest.mark.parametrize(
    ("code", "err", "hit", "harm", "expected"),
    [
        (0, "", None, None, []),
        (0, "", FULL, None, []),
        (0, "", None, DAMAGE, ["goes on with a damaged artifact (base: deleted a)"]),
        (1, REFUSED, None, DAMAGE, []),
        (1, REFUSED, None, None, [f"ends with 1: {REFUSED.strip()}"]),
        (1, REFUSED.replace("base", "sft"), None, DAMAGE, [f"ends with 1: {REFUSED.strip().replace('base', 'sft')}"]),
        (1, "error: x: No space left on device\n", FULL, None, []),
        (1, "error: x: y\n", FULL, None, ["gives another reason than the fault: error: x: y"]),
        (1, "error: x\nerror: y\n", FULL, None, ["ends with 2 error lines, not 1: error: x | error: y"]),
        (75, "", FULL, None, ["ends with 75: no error line"]),
    ],
)
def test_a_run_is_judged_by_its_fault(tmp_path: Path, code, err, hit, harm, expected) -> None:
    assert faults_of(_ended(tmp_path, code, err), hit, harm) == expected


def test_a_traceback_is_a_mistake_whatever_the_exit_code_is(tmp_path: Path) -> None:
    for code in (0, 1):
        found = faults_of(_ended(tmp_path, code, TRACEBACK), FULL, None)
        assert found[0].startswith("shows a traceback: ") and "KeyError: 'a'" in found[0]


def test_the_folder_to_delete_is_read_from_the_line() -> None:
    assert named_folder(REFUSED) == BASE
    assert named_folder(f"error: base: {BASE}: has no manifest.json, so it is not complete; delete it") == BASE
    assert named_folder("error: x: No space left on device") is None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one artifact of three files."""
    store = Store(tmp_path / "artifacts")
    folder = store.begin("base", ID)
    (folder / "logs").mkdir()
    (folder / "logs" / "metrics.jsonl").write_text('{"loss": 1.5, "tokens_per_second": 7.0}\n')
    (folder / "weights").write_bytes(bytes(range(256)))
    (folder / "config.json").write_text("{}")
    store.publish(Manifest("base", "pretrain", ID, 1, {"lr": 0.25}, {}, {}, {}, {}, 0.1))
    return store


@pytest.mark.parametrize("name", [name for name in AT_REST if name.startswith("artifact ")])
def test_damage_of_an_artifact_is_refused_with_its_folder(store: Store, tmp_path: Path, name: str) -> None:
    harm = AT_REST[name](tmp_path, random.Random(2))
    assert harm is not None and harm.refused == store.root / f"base-{ID}"
    with pytest.raises(ArtifactError) as refusal:
        artifact = store.find("base", ID)
        assert artifact is not None
        store.verify(artifact, "base")
    assert named_folder(str(refusal.value)) == harm.refused


@pytest.mark.parametrize("name", ["litter planted", "times a year off"])
def test_litter_and_wrong_times_leave_the_artifacts_what_they_are(store: Store, tmp_path: Path, name: str) -> None:
    before = hashes(tmp_path)
    assert AT_REST[name](tmp_path, random.Random(0)) is not None
    assert hashes(tmp_path) == before
    artifact = store.find("base", ID)
    assert artifact is not None
    store.verify(artifact, "base")


def test_stores_are_compared_file_by_file_without_times(store: Store, tmp_path: Path) -> None:
    calm = hashes(tmp_path)
    folder = store.root / f"base-{ID}"
    log = folder / "logs" / "metrics.jsonl"
    log.write_text(log.read_text().replace("7.0", "8.0"))
    assert differences(hashes(tmp_path), calm) == []
    log.write_text(log.read_text().replace("1.5", "1.6"))
    (folder / "weights").unlink()
    (folder / "new").touch()
    found = [f"base-{ID}/{name}" for name in ("logs/metrics.jsonl: differs", "new: is new", "weights: is missing")]
    assert differences(hashes(tmp_path), calm) == found
    assert differences({"sft-1": {}}, calm) == ["sft-1: the calm run did not make it"]


def test_the_clock_jumps_after_a_hundred_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    really = time.time
    monkeypatch.setattr(time, "time", really)
    monkeypatch.setattr(time, "time_ns", time.time_ns)
    jumping(-86400.0)
    assert abs(time.time() - really()) < 3600
    for _ in range(CALM_READINGS):
        time.time()
    assert abs(time.time() - really() + 86400) < 3600
    assert abs(time.time_ns() / 1e9 - really() + 86400) < 3600
