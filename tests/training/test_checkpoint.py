"""Checkpoints are whole or absent, whatever happens while one is written, and no file of one can run code."""

import json
import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from solar.errors import StageError
from solar.training.checkpoint import folder as module
from solar.training.checkpoint.folder import IDENTITY, MANIFEST, STATE, TENSORS, SafetensorsCheckpointIO, damage
from solar.training.checkpoint.points import checkpoint_path, checkpoints, newest_whole, prune, step_of
from solar.training.checkpoint.tree import flatten, unflatten
from tests.faults.crashes import killed_at
from tests.faults.disks import largest_file, small_disk
from tests.faults.power_loss import Lost, cut_at


def same(left, right):
    """Whether two nested states are equal to the last bit."""
    (plain_left, left), (plain_right, right) = flatten(left), flatten(right)
    assert plain_left == plain_right and left.keys() == right.keys()
    return all(value.dtype == right[name].dtype and torch.equal(value, right[name]) for name, value in left.items())


def _state(step):
    weight = torch.full((3, 4), float(step))
    moments = {"exp_avg": torch.ones(3, 4) * step, "step": torch.tensor(float(step))}
    group = {"lr": 0.1, "betas": (0.9, 0.95), "params": [0], "fused": True, "foreach": None}
    return {
        "state_dict": {"embed": weight, "head": weight},
        "optimizer_states": [{"state": {0: moments}, "param_groups": [group]}],
        "solar": {"steps_done": step},
    }


def _save(folder, step):
    SafetensorsCheckpointIO().save_checkpoint(_state(step), checkpoint_path(folder, step))


def _load(path):
    return SafetensorsCheckpointIO().load_checkpoint(path)


def test_a_saved_state_is_loaded_with_every_bit_and_type(tmp_path):
    _save(tmp_path, 7)
    state = _load(checkpoint_path(tmp_path, 7))
    assert same(state, _state(7))
    assert isinstance(state["optimizer_states"][0]["param_groups"][0]["betas"], tuple)
    assert list(state["optimizer_states"][0]["state"]) == [0]


def test_a_tensor_held_twice_is_stored_once(tmp_path):
    _save(tmp_path, 7)
    assert len(load_file(checkpoint_path(tmp_path, 7) / TENSORS)) == 3


def test_a_tensor_and_its_transposed_view_are_stored_separately():
    weight = torch.arange(9.0).view(3, 3)
    plain, tensors = flatten([weight, weight.T])
    back = unflatten(plain, {name: tensor.contiguous() for name, tensor in tensors.items()})
    assert torch.equal(back[0], weight) and torch.equal(back[1], weight.T)


def test_a_value_that_json_cannot_hold_is_refused_with_its_path():
    with pytest.raises(TypeError, match=r"a\.1: set"):
        flatten({"a": [1, {2}]})


def test_the_files_are_json_and_safetensors_and_nothing_else(tmp_path):
    _save(tmp_path, 7)
    assert {path.name for path in checkpoint_path(tmp_path, 7).iterdir()} == {TENSORS, STATE, MANIFEST}
    json.loads((checkpoint_path(tmp_path, 7) / STATE).read_text())


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _become_folder(path):
    path.unlink()
    path.mkdir()


def _become_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _become_pipe(path):
    path.unlink()
    os.mkfifo(path)


def _become_pickle(path):
    path.write_bytes(pickle.dumps(Planted()))


class Planted:
    def __reduce__(self):
        return os.system, (f"touch {Path(__file__).parent / 'planted'}",)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "half": _cut,
    "one bit": _flip,
    "absent": Path.unlink,
    "folder": _become_folder,
    "link": _become_link,
    "pipe": _become_pipe,
    "pickle": _become_pickle,
}


@pytest.mark.parametrize("name", [TENSORS, STATE, MANIFEST])
@pytest.mark.parametrize("how", DAMAGES)
def test_resuming_falls_back_from_a_damaged_checkpoint_with_a_warning(tmp_path, name, how):
    """T-A5: each file of a checkpoint, damaged in each way."""
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    DAMAGES[how](checkpoint_path(tmp_path, 2) / name)
    path, passed_over = newest_whole(tmp_path)
    assert path == checkpoint_path(tmp_path, 1)
    assert len(passed_over) == 1 and name in passed_over[0]
    with pytest.raises(StageError, match=name):
        _load(checkpoint_path(tmp_path, 2))
    assert not (Path(__file__).parent / "planted").exists()


def _renamed(folder):
    checkpoint_path(folder, 2).rename(checkpoint_path(folder, 18))


def _swapped(folder):
    checkpoint_path(folder, 1).rename(folder / "other")
    checkpoint_path(folder, 2).rename(checkpoint_path(folder, 1))
    (folder / "other").rename(checkpoint_path(folder, 2))


def _linked_elsewhere(folder):
    checkpoint_path(folder, 2).rename(folder.parent / "elsewhere")
    checkpoint_path(folder, 2).symlink_to(folder.parent / "elsewhere")


def _pipe_in_its_place(folder):
    os.mkfifo(checkpoint_path(folder, 3))


def _file_in_its_place(folder):
    checkpoint_path(folder, 3).write_text("")


@pytest.mark.parametrize(
    ("spoil", "chosen", "problems"),
    [
        (_renamed, 1, ["step-00000018: holds the state after step 2, not 18; training goes on from step-00000001"]),
        (
            _swapped,
            None,
            ["step-00000002: holds the state after step 1, not 2; training starts again", "step-00000001"],
        ),
        (_linked_elsewhere, 1, ["step-00000002: is a link; training goes on from step-00000001"]),
        (_pipe_in_its_place, 2, ["step-00000003: is no folder; training goes on from step-00000002"]),
        (_file_in_its_place, 2, ["step-00000003: is no folder; training goes on from step-00000002"]),
    ],
)
def test_only_a_checkpoint_of_its_own_step_is_resumed(tmp_path, spoil, chosen, problems):
    """T-A5, T-A8: the highest step that validates, and a line for each that does not."""
    folder = tmp_path / "checkpoints"
    _save(folder, 1)
    _save(folder, 2)
    spoil(folder)
    path, lines = newest_whole(folder)
    assert path == (None if chosen is None else checkpoint_path(folder, chosen))
    assert len(lines) == len(problems)
    assert all(expected in line for expected, line in zip(problems, lines, strict=True))


def test_a_checkpoint_of_another_stage_is_not_resumed(tmp_path):
    """T-A8: a checkpoint from another run is refused; one from before ids were written is taken."""
    io = SafetensorsCheckpointIO()
    _save(tmp_path, 1)
    io.save_checkpoint(_state(2), checkpoint_path(tmp_path, 2), {IDENTITY: "mine"})
    io.save_checkpoint(_state(3), checkpoint_path(tmp_path, 3), {IDENTITY: "another"})
    path, (line,) = newest_whole(tmp_path, "mine")
    assert path == checkpoint_path(tmp_path, 2)
    assert "is a checkpoint of the stage with id another, expected mine; training goes on from step-00000002" in line
    shutil.rmtree(path)
    assert newest_whole(tmp_path, "mine")[0] == checkpoint_path(tmp_path, 1)


def test_what_lies_in_the_way_of_a_checkpoint_is_removed_without_what_it_links_to(tmp_path):
    precious, folder = tmp_path / "precious", tmp_path / "checkpoints"
    _save(precious, 9)
    folder.mkdir()
    for name in ("step-00000001", "step-00000002", "step-00000002.building", "step-00000007.building"):
        (folder / name).symlink_to(checkpoint_path(precious, 9))
    _save(folder, 2)
    prune(folder, 1, saved_step=2)
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]
    assert newest_whole(folder) == (checkpoint_path(folder, 2), [])
    assert damage(checkpoint_path(precious, 9)) is None


def test_swapped_tensor_files_are_noticed(tmp_path):
    """T-A5"""
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    one, two = (checkpoint_path(tmp_path, step) / TENSORS for step in (1, 2))
    shutil.copy(one, tmp_path / "other")
    shutil.copy(two, one)
    shutil.copy(tmp_path / "other", two)
    path, passed_over = newest_whole(tmp_path)
    assert path is None and len(passed_over) == 2


def test_the_newest_checkpoint_has_the_highest_step_not_the_latest_file(tmp_path):
    """T-A8"""
    _save(tmp_path, 10)
    _save(tmp_path, 9)
    assert newest_whole(tmp_path)[0] == checkpoint_path(tmp_path, 10)


def test_pruning_keeps_the_newest_checkpoints_and_no_remains_of_interrupted_saves(tmp_path):
    for step in (1, 2, 3):
        _save(tmp_path, step)
    (tmp_path / "step-00000004.building").mkdir()
    prune(tmp_path, 2)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [2, 3]
    assert len(list(tmp_path.iterdir())) == 2


WRITERS = [(module, "save_file"), (Path, "write_text")]


def _save_and_prune(folder):
    _save(folder, 2)
    prune(folder, 1)


def test_a_kill_at_any_moment_of_saving_leaves_a_whole_checkpoint(tmp_path):
    """T-A3"""
    call = 0
    while True:
        folder = tmp_path / str(call)
        _save(folder, 1)
        killed = killed_at(call, partial(_save_and_prune, folder), WRITERS)
        path, _ = newest_whole(folder)
        assert path is not None, f"killed at call {call}: nothing to resume from"
        assert same(_load(path), _state(step_of(path)))
        assert len([p for p in folder.iterdir() if p.suffix == ".building"]) <= 1
        _save(folder, 2)
        prune(folder, 1)
        assert [step_of(path) for path in checkpoints(folder)] == [2] and len(list(folder.iterdir())) == 1
        if not killed:
            break
        call += 1
    assert call > 10


@pytest.mark.parametrize("lost", Lost)
def test_a_power_cut_at_any_moment_of_saving_leaves_a_whole_checkpoint(tmp_path, lost):
    """T-A3: what was not synced is gone."""
    call, cut = 0, True
    while cut:
        folder, after = tmp_path / f"{call}", tmp_path / f"{call}-after"
        _save(folder, 1)
        cut = cut_at(call, partial(_save_and_prune, folder), folder, after, lost)
        path, _ = newest_whole(after)
        assert path is not None, f"the power failed at call {call}: nothing to resume from"
        assert same(_load(path), _state(step_of(path))) and (cut or step_of(path) == 2)
        _save_and_prune(after)
        assert [step_of(path) for path in checkpoints(after)] == [2]
        call += 1
    assert call > 10


def test_a_first_checkpoint_outlives_a_power_cut(tmp_path):
    """T-A3: the folder of the checkpoints is on the disk, too."""
    output, after = tmp_path / "output", tmp_path / "after"
    output.mkdir()
    work = partial(_save, output / "checkpoints", 2)
    assert not cut_at(1000, work, output, after, Lost.everything)
    assert newest_whole(after / "checkpoints")[0] == checkpoint_path(after / "checkpoints", 2)


@pytest.mark.parametrize("failing", ["save_file", "flush"])
def test_a_failing_save_leaves_the_old_checkpoint(tmp_path, monkeypatch, failing):
    """T-A4"""
    _save(tmp_path, 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, failing, fail)
    with pytest.raises(StageError, match="No space"):
        _save(tmp_path, 2)
    assert newest_whole(tmp_path)[0] == checkpoint_path(tmp_path, 1)
    assert damage(checkpoint_path(tmp_path, 1)) is None


@pytest.fixture
def full_disk(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as folder:
        yield folder


def _larger(numbers):
    return _state(2) | {"more": torch.zeros(numbers)}


@pytest.mark.parametrize("numbers", [100_000, 14_000])
def test_a_full_disk_is_reported_in_one_line_and_the_old_checkpoint_stays(full_disk, numbers):
    """T-A6"""
    _save(full_disk, 1)
    with pytest.raises(StageError, match=r"step-00000002: cannot be saved .*No space left.*free some space"):
        SafetensorsCheckpointIO().save_checkpoint(_larger(numbers), checkpoint_path(full_disk, 2))
    assert newest_whole(full_disk) == (checkpoint_path(full_disk, 1), [])
    assert [path.name for path in full_disk.iterdir()] == ["step-00000001"]
    _save(full_disk, 2)
    assert newest_whole(full_disk)[0] == checkpoint_path(full_disk, 2)


def test_a_limit_on_file_sizes_is_reported_in_one_line(tmp_path):
    """T-A6"""
    _save(tmp_path, 1)
    refusal = pytest.raises(StageError, match=r"step-00000002: cannot be saved .*File too large")
    with largest_file(4096), refusal:
        SafetensorsCheckpointIO().save_checkpoint(_larger(10_000), checkpoint_path(tmp_path, 2))
    assert newest_whole(tmp_path) == (checkpoint_path(tmp_path, 1), [])


def test_a_damaged_later_checkpoint_does_not_push_out_the_whole_one(tmp_path):
    """T-A4."""
    for step in (1, 2, 5):
        _save(tmp_path, step)
    _cut(checkpoint_path(tmp_path, 5) / TENSORS)
    _save(tmp_path, 3)  # trained again from step 2
    prune(tmp_path, 1, saved_step=3)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, 3)]


def test_a_checkpoint_holds_the_values_of_the_moment_it_was_saved(tmp_path):
    """T-A12"""
    state = _state(3)
    SafetensorsCheckpointIO().save_checkpoint(state, checkpoint_path(tmp_path, 3))
    state["state_dict"]["embed"].zero_()
    assert same(_load(checkpoint_path(tmp_path, 3)), _state(3))
