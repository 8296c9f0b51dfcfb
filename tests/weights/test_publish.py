"""A folder appears whole or not at all."""

import fcntl
import os
import shutil
import signal

import pytest

from solar.errors import ArtifactError
from solar.weights.publish import published


def test_the_folder_appears_when_all_is_done(tmp_path):
    with published(tmp_path / "sub" / "out") as partial:
        (partial / "weights").write_text("w")
        assert not (tmp_path / "sub" / "out").exists()
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["out"]
    assert (tmp_path / "sub" / "out" / "weights").read_text() == "w"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_error_nothing_is_left(error, tmp_path):
    with pytest.raises(error), published(tmp_path / "out") as partial:
        (partial / "weights").write_text("w")
        raise error
    assert [*tmp_path.iterdir()] == []


def test_a_failed_write_is_one_line_with_the_place(tmp_path):
    refusal = pytest.raises(ArtifactError, match=r"out: cannot be written \(No space left on device\)")
    with refusal, published(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_process_left_is_cleared(tmp_path):
    left = tmp_path / ".out.partial" / "folder"
    left.mkdir(parents=True)
    (left / "old").write_text("old")
    (tmp_path / ".out.partial" / "link").symlink_to(tmp_path)
    (tmp_path / ".out.partial.mark").touch()
    with published(tmp_path / "out") as partial:
        assert [*partial.iterdir()] == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_target_that_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(ArtifactError, match="exists already"), published(tmp_path / "out") as partial:
        (partial / "mine").write_text("mine")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("theirs")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


def test_a_broken_link_at_the_target_is_kept(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="exists already"), published(tmp_path / "out"):
        pass
    assert (tmp_path / "out").is_symlink() and not (tmp_path / "nowhere").exists()


def test_a_target_inside_a_source_is_refused(tmp_path):
    refusal = pytest.raises(ArtifactError, match="expected a folder of its own")
    with refusal, published(tmp_path / "base" / "out", [tmp_path / "base"]):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_link_planted_at_the_partial_folder_is_not_followed(tmp_path):
    """T-E10."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    (tmp_path / ".out.partial").symlink_to(tmp_path / "precious")
    with pytest.raises(ArtifactError, match="cannot be made"), published(tmp_path / "out"):
        pass
    assert (tmp_path / "precious" / "file").read_text() == "kept"


def test_a_folder_that_another_process_builds_is_left_to_it(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "work").write_text("theirs")
    owner = os.open(tmp_path / ".out.partial", os.O_RDONLY)
    fcntl.flock(owner, fcntl.LOCK_EX)
    with pytest.raises(ArtifactError, match="another process is building it"), published(tmp_path / "out"):
        pass
    assert (tmp_path / ".out.partial" / "work").exists()
    os.close(owner)


def test_what_somebody_else_put_into_the_folder_to_build_in_is_kept(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "thesis").write_text("years of work")
    refusal = pytest.raises(ArtifactError, match=r"\.out\.partial: holds files, .* solar did not make it")
    with refusal, published(tmp_path / "out"):
        pass
    assert (tmp_path / ".out.partial" / "thesis").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]


def test_after_a_kill_at_any_moment_the_next_process_publishes_and_leaves_nothing_else(tmp_path):
    calls = 0
    while True:
        place = tmp_path / str(calls)
        place.mkdir()
        killed = _killed_at(calls, place / "out")
        if (place / "out").exists():
            assert (place / "out" / "weights").read_text() == "w"
            shutil.rmtree(place / "out")
        with published(place / "out") as partial:
            (partial / "weights").write_text("w")
        assert [path.name for path in place.rglob("*")] == ["out", "weights"]
        if not killed:
            break
        calls += 1
    assert calls > 4


def _killed_at(call, target):
    """Publish in a child that is killed right before its `call`-th call into the system."""
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

        for name in ("mkdir", "rename", "unlink", "open"):
            setattr(os, name, counted(getattr(os, name)))
        with published(target) as partial:
            (partial / "weights").write_text("w")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
