import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from solar.errors import ArtifactError
from solar.weights.folder import open_folder

RIGHT = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}


@pytest.fixture
def folder(tmp_path):
    """Two shards: `a` and `b` in the first, `c` in the second."""
    path = tmp_path / "base"
    path.mkdir()
    (path / "config.json").write_text("{}")
    save_file({"a": np.zeros(2), "b": np.ones(3)}, path / "one.safetensors")
    save_file({"c": np.zeros(1)}, path / "two.safetensors")
    write_index(path, **RIGHT)
    return path


def write_index(path, **weight_map):
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_tensors_of_all_shards_are_found(folder):
    base = open_folder(folder)
    assert set(base.tensors) == {"a", "b", "c"} and base.parameters == 6 and base.nbytes == 48
    assert [path.name for path in base.files] == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize(
    "name",
    ["../two.safetensors", "/etc/passwd", "a/../two.safetensors", "sub/two.safetensors", "two\\x", "..", "", "x\0y"],
)
def test_a_shard_name_that_is_no_plain_name_is_refused(name, folder):
    """T-E4."""
    write_index(folder, a="one.safetensors", b="one.safetensors", c=name)
    with pytest.raises(ArtifactError, match="expected a plain name"):
        open_folder(folder)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    """T-E4."""
    save_file({"c": np.zeros(1)}, tmp_path / "outside.safetensors")
    (folder / "two.safetensors").unlink()
    (folder / "two.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(ArtifactError, match="outside the folder"):
        open_folder(folder)


def test_a_snapshot_of_the_hugging_face_cache_may_link_to_its_blobs(folder, tmp_path):
    snapshot = tmp_path / "models--x" / "snapshots" / "0123"
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        path.replace(blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert len(open_folder(snapshot).tensors) == 3


@pytest.mark.parametrize("name", ["config.json", "two.safetensors", "."])
def test_what_this_user_may_not_read_is_refused(name, folder, monkeypatch):
    """The tests run as root, who may read everything: the answer of the system is replaced."""
    may = os.access
    closed = (folder / name).resolve()
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and may(path, mode))
    with pytest.raises(ArtifactError, match="may not be read by this user"):
        open_folder(folder)


def test_a_pipe_is_no_shard(folder):
    """T-E4."""
    (folder / "two.safetensors").unlink()
    os.mkfifo(folder / "two.safetensors")
    with pytest.raises(ArtifactError, match="not a regular file"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        (
            {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors", "d": "one.safetensors"},
            "d: not in one",
        ),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "b: not in the index"),
        ({**RIGHT, "a": "two.safetensors"}, "a: not in two"),
        ({**RIGHT, "c": "three.safetensors"}, "no such file"),
        ({"a": 3}, "no weight_map of names"),
    ],
)
def test_an_index_that_lies_is_refused_with_the_tensor(weight_map, said, folder):
    write_index(folder, **weight_map)
    with pytest.raises(ArtifactError, match=said):
        open_folder(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    save_file({"c": np.zeros(1), "a": np.zeros(2)}, folder / "two.safetensors")
    with pytest.raises(ArtifactError, match=r"a: also in one\.safetensors"):
        open_folder(folder)


def test_two_sets_of_weights_in_one_folder_are_refused(folder):
    save_file({"a": np.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="lies beside it"):
        open_folder(folder)


def test_pickled_weights_are_pointed_to_convert(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"solar\.grow convert"):
        open_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":' * 50_000, "\x00"])
def test_a_config_that_is_no_object_is_refused(text, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        open_folder(folder)
