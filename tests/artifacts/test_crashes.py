"""A kill at any call into the system leaves a whole artifact or none, and nothing that the next run does not clear."""

import os
import signal
from pathlib import Path

from solar.artifacts.known import FILE, Known
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Artifact, Store
from solar.artifacts.tidy import remove_dead_attempts

ID = "0" * 12
CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "open", "fsync", "link", "write")


def _build(root: Path) -> Artifact:
    store = Store(root / "artifacts", Known.load(root))
    remove_dead_attempts(store)
    if (found := store.find("sft", ID)) is None:
        partial = store.begin("sft", ID)
        (partial / "model").mkdir(exist_ok=True)
        (partial / "checkpoints").mkdir(exist_ok=True)
        (partial / "checkpoints" / "written").touch()
        (store.partial("sft", ID) / "model" / "weights").write_text("w")
        found = store.publish(Manifest("sft", "sft", ID, 1, {}, {}, {}, {}, {}, 0.1))
    store.verify(found, "sft")
    return found


def _killed_at(call: int, root: Path) -> bool:
    """Build in a child that is killed right before its `call`-th call into the system."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function):
            def wrapper(*arguments, **keywords):
                nonlocal count
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return function(*arguments, **keywords)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        _build(root)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_moment_of_building_is_cleared_up_by_the_next_run(tmp_path: Path) -> None:
    """T-A3, for the store."""
    call = 0
    while True:
        root = tmp_path / str(call)
        root.mkdir()
        killed = _killed_at(call, root)
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
