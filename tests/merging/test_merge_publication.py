"""A merged model appears whole or not at all."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from solar.config.merging import MergeConfig, MergeMethod
from solar.errors import ArtifactError
from solar.merge import main
from solar.merging.merge import merge
from solar.merging.soup import greedy_soup

SLOW_MERGE = """
import sys, time
from solar import merge
from solar.merging import stream
quick = stream.write
def slow(*arguments):
    quick(*arguments)
    print("written", flush=True)
    time.sleep(0.5)
stream.write = slow
sys.exit(merge.main(sys.argv[1:]))
"""


def half_way(models, target) -> subprocess.Popen:
    """A merge in its own process that has written one tensor of many."""
    command = [sys.executable, "-c", SLOW_MERGE, *map(str, models), str(target), "method=average", "threads=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    return process


@pytest.fixture
def models(model):
    return [model({f"w{i}": [value] for i in range(20)}) for value in (1.0, 3.0)]


def test_a_merge_that_is_told_to_stop_half_way_leaves_nothing(models, tmp_path):
    before = sorted(tmp_path.iterdir())
    process = half_way(models, tmp_path / "out")
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert sorted(tmp_path.iterdir()) == before


def test_a_merge_killed_half_way_publishes_nothing_and_the_next_one_clears_up(models, tmp_path):
    before = sorted(tmp_path.iterdir())
    process = half_way(models, tmp_path / "out")
    process.kill()
    process.wait(30)
    (tmp_path / ".out.partial" / "copied_before_the_kill.json").touch()
    assert not (tmp_path / "out").exists()
    merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "merge.json",
        "model.safetensors",
    ]


def test_a_disk_that_fills_up_is_one_line_that_says_where_and_leaves_nothing(models, tmp_path, monkeypatch, capsys):
    """T-A6."""
    before, quick, written = sorted(tmp_path.iterdir()), os.pwrite, []

    def full_after_five(descriptor, data, offset):
        written.append(offset)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return quick(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full_after_five)
    assert main([*map(str, models), str(tmp_path / "out"), "method=average", "threads=1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: w") and error.count("\n") == 1
    assert f"No space left on device, in the merge at {tmp_path}/out" in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_is_too_small_is_found_out_before_work(models, tmp_path, monkeypatch, capsys):
    needed = (models[0] / "model.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=needed - 1))
    assert main([*map(str, models), str(tmp_path / "new" / "out"), "method=average"]) == 1
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path}: {needed - 1:,} bytes free, expected {needed:,}; choose another place\n"
    assert not (tmp_path / "new").exists()


def test_two_merges_into_one_folder_do_not_meet(models, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "work").write_text("of another process")
    owner = os.open(partial, os.O_RDONLY)
    fcntl.flock(owner, fcntl.LOCK_EX)
    with pytest.raises(ArtifactError, match="another process is building it"):
        merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))
    assert (partial / "work").exists()
    os.close(owner)


def test_tokenizer_and_configuration_travel_from_the_first_model(models, tmp_path):
    for folder, name in zip(models, "ab", strict=True):
        (folder / "tokenizer_config.json").write_text(json.dumps({"name": name}))
        (folder / "chat_template.jinja").write_text(name)
        (folder / "training_args.bin").write_text("not wanted")
        (folder / "README.md").write_text(f"all about {name}")
    merge(models, tmp_path / "out", MergeConfig("merge", ["one", "two"], MergeMethod.average, weights=[1.0, 3.0]))
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"}
    assert set(files) == {"config.json", "tokenizer_config.json", "chat_template.jinja", "merge.json"}
    assert files["chat_template.jinja"] == "a"
    note = {"kind": "merge", "models": ["one", "two"], "method": "average", "weights": [1.0, 3.0]}
    assert json.loads(files["merge.json"]) == note


def test_a_greedy_soup_takes_what_helps_and_leaves_the_rest(model, tmp_path):
    models = {name: model({"w": [value]}) for name, value in zip("abcd", (9.0, 3.0, 5.0, 5.5), strict=True)}

    def score(folder):  # best at 4
        stored = (folder / "model.safetensors").read_bytes()[-4:]
        return -abs(memoryview(stored).cast("f")[0] - 4)

    before = sorted(tmp_path.iterdir())
    report = greedy_soup(models, tmp_path / "soup", score)
    # alone: b and c miss by 1 (the first named leads); their mean is 4; neither d nor a improves that
    assert report.alone == {"a": -5.0, "b": -1.0, "c": -1.0, "d": -1.5}
    assert [tried.models for tried in report.tried] == [["b", "c"], ["b", "c", "d"], ["b", "c", "a"]]
    assert report.tried[1].score == -0.5  # (3 + 5 + 5.5) / 3
    assert report.kept == ["b", "c"]
    assert report.score == score(tmp_path / "soup") == 0.0
    assert json.loads((tmp_path / "soup" / "merge.json").read_text())["models"] == ["b", "c"]
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "soup"])


def test_a_merge_says_how_long_it_took(models, tmp_path):
    began = time.monotonic()
    report = merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))
    assert 0 < report.wall_seconds <= time.monotonic() - began
    assert (report.models, report.tensors, report.parameters) == (2, 20, 20)
    assert report.size_bytes == (tmp_path / "out" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_whose_files_choose_code_is_refused_and_nothing_is_left(name, models, tmp_path):
    chooses = {"auto_map": {"AutoModel": "modeling_x.X"}}
    (models[0] / name).write_text(json.dumps({"model_type": "llama", "text_config": chooses}))
    with pytest.raises(ArtifactError, match=rf"{name}: text_config\.auto_map asks to run code"):
        merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))
    assert not (tmp_path / "out").exists()


def test_what_travels_does_so_byte_for_byte(models, tmp_path):
    first = models[0]
    (first / "generation_config.json").write_text('{"top_p":   0.9}')
    (first / "modeling_x.py").write_text("raise SystemExit")
    (first / "LICENSE.txt").write_text("as is")
    merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))
    out = tmp_path / "out"
    assert (out / "generation_config.json").read_text() == '{"top_p":   0.9}'
    assert (out / "LICENSE.txt").exists() and not list(out.glob("*.py"))
