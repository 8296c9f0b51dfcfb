"""Nothing planted in a store leads solar elsewhere, and solar removes only what it made."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from solar.artifacts import claim, process
from solar.artifacts.atomic import write_atomically
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Store
from solar.errors import ArtifactError, ArtifactInUse

ID = "0" * 12
DEAD = {"host": socket.gethostname(), "boot": "before", "pid": 1, "started": "1"}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder elsewhere, which must stay as it is."""
    folder = tmp_path / "precious"
    (folder / "step-1").mkdir(parents=True)
    (folder / "thesis").write_text("years of work")
    return folder


def _is_untouched(precious: Path) -> bool:
    names = sorted(path.relative_to(precious).as_posix() for path in precious.rglob("*"))
    return names == ["step-1", "thesis"] and (precious / "thesis").read_text() == "years of work"


def _manifest() -> Manifest:
    return Manifest("sft", "sft", ID, 1, {}, {}, {}, {}, {}, 0.1)


def _partial(store: Store) -> Path:
    """What a killed attempt left."""
    partial = store.root / f"sft-{ID}.partial"
    partial.mkdir(parents=True)
    (partial / "owner.json").write_text(json.dumps(DEAD))
    return partial


def test_a_partial_folder_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path, precious: Path) -> None:
    """T-E10."""
    store = Store(tmp_path / "artifacts")
    store.root.mkdir()
    (store.root / f"sft-{ID}.partial").symlink_to(precious)
    with pytest.raises(ArtifactError, match=r"\.partial: is a link, expected a folder; .*remove it"):
        store.begin("sft", ID)
    store.abandon("sft", ID)
    assert _is_untouched(precious)


def test_an_artifact_that_is_a_link_is_refused(tmp_path: Path, precious: Path) -> None:
    store = Store(tmp_path / "artifacts")
    store.root.mkdir()
    (store.root / f"sft-{ID}").symlink_to(precious)
    with pytest.raises(ArtifactError, match="is a link, expected a folder"):
        store.find("sft", ID)


def test_a_partial_folder_with_files_that_solar_did_not_make_is_refused_and_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    partial = store.root / f"sft-{ID}.partial"
    partial.mkdir(parents=True)
    (partial / "thesis").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"holds files but no owner\.json, so solar did not make it; move it away"):
        store.begin("sft", ID)
    assert [path.name for path in partial.iterdir()] == ["thesis"]


@pytest.mark.parametrize("name", ["model", "checkpoints", "logs"])
def test_a_link_in_a_killed_attempt_is_removed_without_its_target(tmp_path: Path, precious: Path, name: str) -> None:
    """T-E10."""
    store = Store(tmp_path / "artifacts")
    partial = _partial(store)
    (partial / name).symlink_to(precious)
    assert [path.name for path in store.begin("sft", ID).iterdir()] == ["owner.json"]
    assert _is_untouched(precious)


def test_an_attempt_with_checkpoints_and_a_link_is_refused_before_anything_is_written_through_it(
    tmp_path: Path, precious: Path
) -> None:
    store = Store(tmp_path / "artifacts")
    partial = _partial(store)
    (partial / "checkpoints" / "step-00000001").mkdir(parents=True)
    (partial / "logs").symlink_to(precious)
    for _ in range(2):
        with pytest.raises(ArtifactError, match="logs: is a link, expected a plain file; remove it"):
            store.begin("sft", ID)
    assert _is_untouched(precious) and (partial / "checkpoints" / "step-00000001").exists()


def _as_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _as_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [_as_link, _as_pipe])
def test_an_owner_file_that_is_no_file_is_one_line(tmp_path: Path, precious: Path, plant) -> None:
    """T-F1: a pipe in place of the owner file would stop every run for ever."""
    store = Store(tmp_path / "artifacts")
    partial = _partial(store)
    (partial / "owner.json").unlink()
    plant(partial / "owner.json", precious / "thesis")
    with pytest.raises(ArtifactError, match=r"owner\.json: cannot be read \(is a (link|pipe), expected a plain file\)"):
        store.begin("sft", ID)
    assert _is_untouched(precious)


@pytest.mark.parametrize("plant", [_as_link, _as_pipe])
@pytest.mark.parametrize("name", ["manifest.json", "model/weights"])
def test_a_file_of_an_artifact_that_is_no_file_is_one_line(tmp_path: Path, precious: Path, plant, name: str) -> None:
    store = Store(tmp_path / "artifacts")
    (store.begin("sft", ID) / "model").mkdir()
    (store.partial("sft", ID) / "model" / "weights").write_text("years of work")
    folder = store.publish(_manifest()).path
    (folder / name).unlink()
    plant(folder / name, precious / "thesis")
    with pytest.raises(ArtifactError, match=r"is a (link|pipe), expected a plain file"):
        store.find("sft", ID)


@pytest.mark.parametrize("plant", [_as_link, _as_pipe])
def test_what_a_stage_leaves_must_be_plain_files(tmp_path: Path, precious: Path, plant) -> None:
    store = Store(tmp_path / "artifacts")
    plant(store.begin("sft", ID) / "weights", precious / "thesis")
    with pytest.raises(ArtifactError, match=r"weights: is a (link|pipe), expected a plain file; remove it"):
        store.publish(_manifest())
    assert not (store.root / f"sft-{ID}").exists()


def test_a_file_is_replaced_without_writing_through_a_planted_link(tmp_path: Path, precious: Path) -> None:
    """T-E10."""
    (tmp_path / "a.json").symlink_to(precious / "thesis")
    (tmp_path / f".a.json.{os.getpid()}").symlink_to(precious / "thesis")
    write_atomically(tmp_path / "a.json", "{}")
    assert (tmp_path / "a.json").read_text() == "{}" and not (tmp_path / "a.json").is_symlink()
    assert _is_untouched(precious)


def test_files_of_killed_writers_do_not_get_into_an_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    partial = _partial(store)
    (partial / "checkpoints" / "step-00000001").mkdir(parents=True)
    (partial / ".owner.json.17-aa").touch()
    (partial / ".manifest.json.17-aa").touch()
    store.begin("sft", ID)
    assert [path.name for path in store.publish(_manifest()).path.iterdir()] == ["manifest.json"]


def _as_user(uid: int, umask: int, store: Store, content: str, publish: bool) -> str:
    """Build as another user of the group 65500, and end without a goodbye; returns "done", or the error."""
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.umask(umask)
        os.setgroups([])
        os.setgid(65500)
        os.setuid(uid)
        try:
            (store.begin("sft", ID) / "weights").write_text(content)
            if publish:
                store.publish(_manifest())
            os.write(writing, b"done")
        except (OSError, ArtifactError) as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.fixture
def shared() -> Path:
    """A store that a group may write, where other users can reach it."""
    root = Path(f"/tmp/solar-shared-{os.getpid()}")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    os.chown(root, 0, 65500)
    root.chmod(0o2775)
    yield root
    shutil.rmtree(root)


def test_a_member_of_the_group_takes_over_from_another_who_died(shared: Path) -> None:
    """T-F1: two users at one store that their group may write."""
    store = Store(shared)
    assert _as_user(65501, 0o002, store, "half", publish=False) == "done"
    assert _as_user(65502, 0o002, store, "whole", publish=True) == "done"
    assert (shared / f"sft-{ID}" / "weights").read_text() == "whole"


def test_an_attempt_that_another_user_keeps_to_himself_is_left_as_it_is(shared: Path) -> None:
    """T-F1: without the right to write there, no file is removed."""
    store = Store(shared)
    assert _as_user(65501, 0o022, store, "half", publish=False) == "done"
    assert "PermissionError" in _as_user(65502, 0o022, store, "whole", publish=True)  # `solar.run` makes one line of it
    assert (shared / f"sft-{ID}.partial" / "weights").read_text() == "half"


def test_a_live_owner_whom_the_system_hides_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-F1: with `hidepid`, /proc shows no processes of other users; the lock of the owner file still tells."""
    program = (
        "import sys; from pathlib import Path; from solar.artifacts.claim import claim\n"
        "claim(Path(sys.argv[1])); print('mine', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "mine\n"
    monkeypatch.setattr(process, "started", lambda pid: None)
    with pytest.raises(ArtifactInUse, match=f"process {owner.pid} is building it"):
        claim.refuse_live_owner(tmp_path)
    owner.kill()
    owner.wait()
    claim.refuse_live_owner(tmp_path)


@pytest.mark.parametrize("owner", ["", "[]", "{}", '{"pid": "x"}', '{"pid": 99999999999999999999}', '{"pid": -1}'])
def test_an_owner_file_that_names_no_process_gives_way(tmp_path: Path, owner: str) -> None:
    (tmp_path / "owner.json").write_text(owner)
    claim.claim(tmp_path)
    assert json.loads((tmp_path / "owner.json").read_text())["pid"] == os.getpid()
