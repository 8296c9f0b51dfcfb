"""What crashes leave is removed by the next run or by `gc`; work that can be resumed and strangers' files are not."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from solar.artifacts.__main__ import main
from solar.artifacts.atomic import write_atomically
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Store
from solar.artifacts.tidy import remove_dead_attempts

DEAD = {"host": socket.gethostname(), "boot": "before", "pid": 1, "started": "1"}


def _attempt(root: Path, name: str, owner: object = DEAD, **files: str) -> Path:
    folder = root / "artifacts" / f"{name}.partial"
    folder.mkdir(parents=True)
    if owner is not None:
        (folder / "owner.json").write_text(json.dumps(owner))
    for file, content in files.items():
        path = folder / file.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store after crashes: what is dead, what can be resumed, what others do, what nobody knows, and an artifact."""
    _attempt(tmp_path, "dead-000000000001", model="half")
    _attempt(tmp_path, "resumable-000000000002", checkpoints__written="x")
    _attempt(tmp_path, "elsewhere-000000000003", {**DEAD, "host": "another"}, model="half")
    _attempt(tmp_path, "strange-000000000004", None, thesis="years of work")
    store = Store(tmp_path / "artifacts")
    (store.begin("sft", "0" * 12) / "weights").write_text("w")
    store.publish(Manifest("sft", "sft", "0" * 12, 1, {}, {}, {}, {}, {}, 0.1))
    _old(tmp_path / ".verified.json.17-aa")
    return tmp_path


def _old(path: Path) -> None:
    path.touch()
    os.utime(path, (time.time() - 7200, time.time() - 7200))


LEFT = ["elsewhere-000000000003.partial", "resumable-000000000002.partial", f"sft-{'0' * 12}"]


def test_a_run_removes_dead_attempts_without_checkpoints_and_nothing_else(root: Path) -> None:
    remove_dead_attempts(Store(root / "artifacts"))
    left = sorted(path.name for path in (root / "artifacts").iterdir())
    assert left == [*LEFT, "strange-000000000004.partial"]
    assert (root / "artifacts" / "strange-000000000004.partial" / "thesis").exists()
    assert (root / "artifacts" / "resumable-000000000002.partial" / "checkpoints" / "written").exists()


def test_the_attempt_of_a_live_process_is_left_to_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    (store.begin("sft", "0" * 12) / "half").touch()
    remove_dead_attempts(store)
    assert (store.partial("sft", "0" * 12) / "half").exists()


def test_gc_says_what_it_would_remove_and_removes_it_when_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "artifacts" / f"torn-{'5' * 12}").mkdir()
    os.mkfifo(_attempt(root, "piped-000000000006", None) / "owner.json")
    before = sorted(root.rglob("*"))
    assert main(["gc", f"root={root}"]) == 0
    lines = capsys.readouterr().out.replace(f"{root}/", "").splitlines()
    assert sorted(root.rglob("*")) == before
    assert [line.split()[:3] for line in lines] == [
        ["would", "remove", ".verified.json.17-aa:"],
        ["would", "remove", "artifacts/dead-000000000001.partial:"],
        ["kept", "artifacts/piped-000000000006.partial:", "artifacts/piped-000000000006.partial/owner.json:"],
        ["kept", "artifacts/resumable-000000000002.partial:", "unfinished,"],
        ["kept", "artifacts/strange-000000000004.partial:", "holds"],
        ["kept", f"artifacts/torn-{'5' * 12}:", "has"],
    ]
    assert main(["gc", f"root={root}", "delete=true"]) == 0
    assert capsys.readouterr().out.count("removed  ") == 2
    left = sorted(path.name for path in (root / "artifacts").iterdir())
    assert left == sorted([*LEFT, "piped-000000000006.partial", "strange-000000000004.partial", f"torn-{'5' * 12}"])
    assert not (root / ".verified.json.17-aa").exists()


def test_verify_reads_every_file_and_names_each_that_changed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "artifacts" / f"sft-{'0' * 12}"
    assert main(["verify", f"root={root}"]) == 0
    assert capsys.readouterr().out == f"whole  {folder.name}  1 files, 1 bytes\n"
    (folder / "weights").write_text("v")
    assert main(["verify", f"root={root}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"error: {folder.name}: {folder}/weights: its content was")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("words", [["gcc", "root=."], ["gc", "root=/nowhere"], ["verify", "root=/nowhere"]])
def test_a_mistake_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_killed_writer_leaves_the_old_file_and_the_next_writer_clears_up(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from solar.artifacts.atomic import write_atomically\n"
        "os.fsync = lambda _: os.kill(os.getpid(), 9); write_atomically(Path(sys.argv[1]), 'new')"
    )
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    (left,) = set(tmp_path.iterdir()) - {path}
    assert path.read_text() == "old"
    write_atomically(path, "newer")
    assert left.exists()  # its writer may still live
    _old(left)
    write_atomically(path, "newest")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"] and path.read_text() == "newest"
