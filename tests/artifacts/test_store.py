"""An artifact is there whole, or not at all."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from solar.artifacts import claim, process
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Store
from solar.errors import ArtifactError, ArtifactInUse

DEAD = {"host": socket.gethostname(), "boot": "before", "pid": 1, "started": "1"}
"""An owner file of a process that ended with the machine's last start."""


def _manifest(stage: str = "sft", identity: str = "0" * 12) -> Manifest:
    return Manifest(stage, "sft", identity, 1, {}, {}, {"loss": 1.5}, {}, {}, 0.1)


def _publish(store: Store) -> Path:
    partial = store.begin("sft", "0" * 12)
    (partial / "model").mkdir()
    (partial / "model" / "weights").write_bytes(b"12345")
    return store.publish(_manifest()).path


def test_published_artifact_is_found_with_its_files_described(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = _publish(store)
    found = store.find("sft", "0" * 12)
    assert found is not None and found.path == folder
    # sha256 of the five bytes, from any other tool.
    sha256 = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    assert found.manifest.files == {"model/weights": {"size": 5, "sha256": sha256}}
    assert found.manifest.metrics == {"loss": 1.5}
    assert not store.partial("sft", "0" * 12).exists()


def test_what_is_being_built_is_not_found(tmp_path: Path) -> None:
    """T-F3"""
    store = Store(tmp_path)
    partial = store.begin("sft", "0" * 12)
    (partial / "model").mkdir()
    assert store.find("sft", "0" * 12) is None


@pytest.mark.parametrize("damage", ("truncate", "delete", "no manifest", "torn manifest"))
def test_damage_is_refused_by_name_with_a_way_out(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = _publish(store)
    if damage == "truncate":
        (folder / "model" / "weights").write_bytes(b"123")
    elif damage == "delete":
        (folder / "model" / "weights").unlink()
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text('{"stage": "sf')
    with pytest.raises(ArtifactError, match=r"delete .* to make it again"):
        store.find("sft", "0" * 12)


def test_leftovers_of_a_killed_attempt_do_not_get_into_the_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    partial = store.partial("sft", "0" * 12)
    (partial / "model").mkdir(parents=True)
    (partial / "model" / "half").write_text("x")
    (partial / "owner.json").write_text(json.dumps(DEAD))
    _publish(store)
    assert sorted(path.name for path in store.folder("sft", "0" * 12).rglob("*")) == [
        "manifest.json",
        "model",
        "weights",
    ]


def test_checkpoints_survive_a_failed_attempt_and_are_gone_after_success(tmp_path: Path) -> None:
    store = Store(tmp_path)
    partial = store.begin("sft", "0" * 12)
    (partial / "checkpoints" / "step-10").mkdir(parents=True)
    (partial / "logs").mkdir()
    store.abandon("sft", "0" * 12)
    again = store.begin("sft", "0" * 12)
    assert (again / "checkpoints" / "step-10").is_dir() and (again / "logs").is_dir()
    store.publish(_manifest())
    assert not (store.folder("sft", "0" * 12) / "checkpoints").exists()


def test_publishing_keeps_claim_and_checkpoints_until_the_artifact_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    partial = store.begin("sft", "0" * 12)
    (partial / "checkpoints" / "step-10").mkdir(parents=True)

    def stopped(manifest: Manifest, folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Manifest, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.publish(_manifest())
    assert (partial / "owner.json").exists()
    store.abandon("sft", "0" * 12)
    assert (partial / "checkpoints" / "step-10").is_dir()


def test_a_failed_attempt_without_checkpoints_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    partial = store.begin("sft", "0" * 12)
    (partial / "half").write_text("x")
    store.abandon("sft", "0" * 12)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("locks", ["work", "do nothing"])
def test_of_eight_processes_exactly_one_builds(tmp_path: Path, locks: str) -> None:
    """T-F1, T-F2: also where the file system ignores locks."""
    program = textwrap.dedent("""
        import fcntl, sys, time
        from pathlib import Path
        if sys.argv[2] == "do nothing":
            fcntl.flock = lambda *_: None
        from solar.artifacts.store import Store
        from solar.errors import ArtifactError, ArtifactInUse
        try:
            Store(Path(sys.argv[1])).begin("sft", "0" * 12)
        except ArtifactError as error:
            sys.exit(str(error))
        print("mine", flush=True)
        sys.stdin.read()
    """)
    command = [sys.executable, "-c", program, str(tmp_path), locks]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    several = [subprocess.Popen(command, **pipes) for _ in range(8)]
    # The losers end by themselves; the winner waits for its input to close.
    deadline = time.monotonic() + 600
    while sum(process.poll() is None for process in several) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    (winner,) = [process for process in several if process.poll() is None]
    outputs = [process.communicate("")[0 if process is winner else 1] for process in several]
    assert [process.returncode for process in several].count(0) == 1 and winner.returncode == 0
    assert sum("building it" in line or "took the folder first" in line for line in outputs) == 7


def test_the_folder_of_a_killed_process_can_be_taken(tmp_path: Path) -> None:
    """T-F1"""
    program = (
        "import sys; from pathlib import Path; from solar.artifacts.claim import claim\n"
        "claim(Path(sys.argv[1])); print('mine', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "mine\n"
    with pytest.raises(ArtifactError, match=f"process {owner.pid} is building it"):
        claim.claim(tmp_path)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    claim.claim(tmp_path)
    assert json.loads((tmp_path / "owner.json").read_text())["pid"] == os.getpid()


def test_a_fresh_claim_in_the_place_of_a_dead_one_is_not_removed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-F2: two newcomers find a dead claim, locks do nothing, and the slower one acts on what it saw before."""
    path, read = tmp_path / "owner.json", claim.read_plain
    path.write_text(json.dumps(DEAD))
    fresh = json.dumps(process.describe() | {"locked": False})

    def overtaken(file: Path) -> bytes:
        content = read(file)
        if content == json.dumps(DEAD).encode():
            path.unlink()
            path.write_text(fresh)
        return content

    monkeypatch.setattr(claim, "read_plain", overtaken)
    with pytest.raises(ArtifactInUse, match=f"process {os.getpid()} is building it"):
        claim.claim(tmp_path)
    assert path.read_text() == fresh and [each.name for each in tmp_path.iterdir()] == ["owner.json"]


def test_a_folder_claimed_on_another_machine_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_text(json.dumps({"host": "elsewhere", "boot": "x", "pid": 1, "started": "1"}))
    with pytest.raises(ArtifactError, match="process 1 on elsewhere is building it"):
        claim.claim(tmp_path)


def test_somebody_faster_wins_and_nothing_is_lost(tmp_path: Path) -> None:
    """T-F2."""
    store = Store(tmp_path)
    partial = store.begin("sft", "0" * 12)
    (partial / "slow").write_text("slow")
    finished = store.folder("sft", "0" * 12)
    finished.mkdir()
    (finished / "fast").write_text("fast")
    fast = _manifest()
    fast.files["fast"] = {"size": 4, "sha256": ""}
    fast.write(finished)
    assert store.publish(_manifest()).manifest.files == fast.files
    assert (finished / "fast").read_text() == "fast" and not partial.exists()


def test_an_artifact_is_found_by_its_id_under_any_stages_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = _publish(store)
    found = store.find("tuned", "0" * 12)
    assert found is not None and found.path == folder
    shutil.copytree(folder, tmp_path / f"tuned-{'0' * 12}")
    assert store.find("tuned", "0" * 12).path.name.startswith("tuned-")
    assert store.find("sft", "0" * 12).path == folder
    assert store.find("sft", "1" * 12) is None


def test_a_renamed_stage_resumes_from_the_checkpoints_of_its_old_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.begin("sft", "0" * 12) / "checkpoints" / "step-10").mkdir(parents=True)
    store.abandon("sft", "0" * 12)
    assert (store.begin("tuned", "0" * 12) / "checkpoints" / "step-10").is_dir()
    assert store.publish(_manifest("tuned")).path == tmp_path / f"tuned-{'0' * 12}"
    assert [path.name for path in tmp_path.iterdir()] == [f"tuned-{'0' * 12}"]


NAMESPACES = """
    import sys
    from pathlib import Path
    from solar.artifacts import process
    from solar.artifacts.claim import claim
    process.pid_namespace = lambda: "pid:[of another container]"
    claim(Path(sys.argv[1]))
    print("mine", flush=True)
    sys.stdin.read()
"""


def _claimed_in_another_container(folder: Path) -> "subprocess.Popen[str]":
    """A live claim of a process whose number says nothing here: its start time is made to look like none of ours."""
    program = [sys.executable, "-c", textwrap.dedent(NAMESPACES), str(folder)]
    owner = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "mine\n"
    path = folder / "owner.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 2**22 + 1}))  # the same file, still locked
    return owner


def test_containers_that_share_a_host_name_do_not_take_each_other_for_dead(tmp_path: Path) -> None:
    owner = _claimed_in_another_container(tmp_path)
    with pytest.raises(ArtifactInUse, match="is building it"):
        claim.claim(tmp_path)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    claim.claim(tmp_path)
    assert json.loads((tmp_path / "owner.json").read_text())["pid"] == os.getpid()


def test_a_claim_that_nothing_can_tell_about_is_left_alone_and_the_message_says_what_to_delete(tmp_path: Path) -> None:
    """Another namespace, and a file system that ignores locks."""
    owner = {"host": socket.gethostname(), "boot": "x", "namespace": "y", "pid": 7, "started": "1", "locked": False}
    (tmp_path / "owner.json").write_text(json.dumps(owner))
    with pytest.raises(ArtifactInUse, match=r"process 7 is building it.*delete .*owner\.json"):
        claim.claim(tmp_path)


def test_a_claim_from_before_a_restart_of_the_machine_gives_way(tmp_path: Path) -> None:
    owner = {"host": socket.gethostname(), "boot": "before", "pid": os.getpid(), "started": "1"}
    (tmp_path / "owner.json").write_text(json.dumps(owner))
    claim.claim(tmp_path)
    assert json.loads((tmp_path / "owner.json").read_text())["boot"] != "before"
