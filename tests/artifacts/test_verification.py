"""What a stage wrote is what the next stage reads: contents are compared with the manifest, and remembered."""

import json
import os
import time
from pathlib import Path

import pytest

from solar.artifacts import known as known_module
from solar.artifacts import manifest as manifest_module
from solar.artifacts.known import FILE, Known
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Artifact, Store
from solar.errors import ArtifactError

ID = "0" * 12


def _store(root: Path, **how: bool) -> Store:
    return Store(root / "artifacts", Known.load(root, **how))


def _publish(store: Store) -> Artifact:
    partial = store.begin("sft", ID)
    (partial / "model").mkdir()
    (partial / "model" / "weights").write_bytes(b"12345")
    (partial / "scores.json").write_text("[]")
    time.sleep(0.06)  # a file written a moment ago is read again by the next process
    return store.publish(Manifest("sft", "sft", ID, 1, {}, {"base": "1" * 12}, {"loss": 1.5}, {}, {}, 0.1))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content is hashed, in order."""
    names: list[str] = []
    for module in (known_module, manifest_module):
        hashed = module.plain_sha256

        def counting(path, flush=False, hashed=hashed):
            names.append(path.name)
            return hashed(path, flush)

        monkeypatch.setattr(module, "plain_sha256", counting)
    return names


def _verified(store: Store) -> None:
    found = store.find("sft", ID)
    assert found is not None
    store.verify(found, "sft")


@pytest.mark.parametrize("remember", [True, False], ids=["once", "always"])
@pytest.mark.parametrize("name", ["model/weights", "scores.json"])
def test_a_flipped_byte_of_the_same_size_is_refused_by_stage_and_file(
    tmp_path: Path, name: str, remember: bool
) -> None:
    """T-C7."""
    folder = _publish(_store(tmp_path)).path
    _flip(folder / name)
    with pytest.raises(ArtifactError, match=rf"^sft: .*{name}: its content was changed .*; delete .* to make it again"):
        _verified(_store(tmp_path, remember=remember))


def test_with_size_alone_a_flipped_byte_passes(tmp_path: Path, reads: list[str]) -> None:
    _flip(_publish(_store(tmp_path)).path / "scores.json")
    reads.clear()
    _verified(_store(tmp_path, contents=False))
    assert reads == []


def test_each_file_is_read_once_to_be_published_and_not_again_by_the_next_process(
    tmp_path: Path, reads: list[str]
) -> None:
    folder = _publish(_store(tmp_path)).path
    assert sorted(reads) == ["scores.json", "weights"]
    reads.clear()
    _verified(_store(tmp_path))
    assert reads == []
    os.utime(folder / "scores.json")  # touched: the content may be another
    store = _store(tmp_path)
    _verified(store)
    assert reads == ["scores.json"]
    _verified(store)
    assert reads == ["scores.json"]
    _verified(_store(tmp_path, remember=False))
    assert sorted(reads) == ["scores.json", "scores.json", "weights"]


def test_artifacts_on_another_disk_are_remembered_too(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "artifacts").symlink_to(tmp_path / "disk")
    _publish(_store(tmp_path / "root"))
    reads.clear()
    _verified(_store(tmp_path / "root"))
    assert reads == []


def test_a_changed_file_whose_old_time_was_put_back_is_read_again(tmp_path: Path) -> None:
    path = _publish(_store(tmp_path)).path / "model" / "weights"
    before = path.stat()
    _flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ArtifactError, match="its content was changed"):
        _verified(_store(tmp_path))


def test_a_file_that_was_written_in_the_tick_of_its_reading_is_read_again(tmp_path: Path) -> None:
    known, path = Known(tmp_path / FILE), tmp_path / "file"
    path.write_text("x")
    stamp, sha256 = known_module.plain_sha256(path)
    for after_ns, remembered in ((1_000_000, False), (60_000_000, True)):
        known.note(tmp_path, {"file": (stamp, sha256)}, stamp[4] + after_ns)
        known.save()
        assert (str(path) in Known.load(tmp_path).seen) is remembered


@pytest.mark.parametrize("content", ["", "[1", '{"a": 1}', '{"a": ["x", 1, 1, 1, 1, "y"]}', "[" * 100_000])
def test_a_damaged_memory_only_costs_time(tmp_path: Path, content: str, reads: list[str]) -> None:
    _publish(_store(tmp_path))
    (tmp_path / FILE).write_text(content)
    reads.clear()
    store = _store(tmp_path)
    _verified(store)
    store.known.save()
    assert len(reads) == 2
    _verified(_store(tmp_path))
    assert len(reads) == 2


def test_a_whole_file_is_not_refused_because_its_remembered_hash_is_damaged(tmp_path: Path, reads: list[str]) -> None:
    """The message would ask the user to delete a whole artifact."""
    _publish(_store(tmp_path))
    memory = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({name: [*stamp, f"{'0' * 63}1"] for name, (*stamp, _) in memory.items()}))
    reads.clear()
    store = _store(tmp_path)
    _verified(store)
    assert sorted(reads) == ["scores.json", "weights"]
    store.known.save()
    assert json.loads((tmp_path / FILE).read_text()) == memory


def test_two_processes_remember_what_both_have_read(tmp_path: Path, reads: list[str]) -> None:
    artifact = _publish(_store(tmp_path))
    (tmp_path / FILE).unlink()
    one, two = _store(tmp_path), _store(tmp_path)
    one.known.note(artifact.path, {"scores.json": known_module.plain_sha256(artifact.path / "scores.json")}, 2**62)
    two.known.note(artifact.path, {"model/weights": known_module.plain_sha256(artifact.path / "model/weights")}, 2**62)
    one.known.save()
    two.known.save()
    reads.clear()
    _verified(_store(tmp_path))
    assert reads == []


def _edited(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [{"metrics": {"loss": 0.1}}, {"inputs": {"base": "2" * 12}}, {"wall_seconds": 9.0}, {"sha256": "f" * 64}],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edited_manifest_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = _publish(_store(tmp_path)).path
    _edited(folder, **changes)
    with pytest.raises(ArtifactError, match=r"^sft: .*manifest\.json: was changed since it was written"):
        _store(tmp_path).find("sft", ID)


def test_a_manifest_from_before_its_own_hash_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = _publish(_store(tmp_path)).path
    content = json.loads((folder / "manifest.json").read_text())
    del content["sha256"]
    (folder / "manifest.json").write_text(json.dumps(content, indent=1))
    _verified(_store(tmp_path))


def test_metrics_that_are_not_finite_and_words_of_any_language_keep_the_hash(tmp_path: Path) -> None:
    metrics = {"loss": float("nan"), "wörter": "日本", "steps": -1, "rate": 1e-30, "a": {"2": None}}
    Manifest("s", "sft", ID, 1, {}, {}, metrics, {}, {}, 0.1).write(tmp_path)
    assert Manifest.read(tmp_path).metrics["wörter"] == "日本"


OUTSIDE = {"size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"stage": 1, "stage": 2}', "'stage' comes twice"),
        ("[" * 200_000, "cannot be read"),
        ("[]", "cannot be read"),
        ("null", "cannot be read"),
        ({"files": {"../../x": OUTSIDE}}, r"names the file '../../x', which lies outside the folder"),
        ({"files": {"/etc/passwd": OUTSIDE}}, "lies outside the folder"),
        ({"files": {"x": 3}}, "has no size or sha256 of x"),
        ({"files": []}, "files is no table"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, content: object, message: str) -> None:
    folder = _publish(_store(tmp_path)).path
    if isinstance(content, str):
        (folder / "manifest.json").write_text(content)
    else:
        _edited(folder, sha256="", **content)
    with pytest.raises(ArtifactError, match=f"^sft: .*{message}") as refusal:
        _store(tmp_path).find("sft", ID)
    assert "\n" not in str(refusal.value)


def test_an_artifact_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    folder = _publish(_store(tmp_path)).path
    folder.rename(folder.with_name(f"sft-{'2' * 12}"))
    with pytest.raises(ArtifactError, match=f"is that of sft-{ID}, expected the id {'2' * 12}"):
        _store(tmp_path).find("sft", "2" * 12)


def test_a_file_that_the_stage_did_not_leave_is_refused_and_a_hidden_one_is_not(tmp_path: Path) -> None:
    folder = _publish(_store(tmp_path)).path
    (folder / ".nfs0001").touch()
    _verified(_store(tmp_path))
    (folder / "model" / "model.safetensors.index.json").touch()
    with pytest.raises(ArtifactError, match=r"index\.json: is not in manifest\.json, .* move it away"):
        _store(tmp_path).find("sft", ID)
