"""A flipped byte in a store, or a planted link, is one line and exit code 1; a run never goes on from damage."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Run, command

pytestmark = pytest.mark.slow
FILES = {
    "base weights": ("base", "model/model.safetensors"),
    "base config": ("base", "model/config.json"),
    "tokens": ("pretrain_data", "train/tokens-00000.bin"),
    "tokenizer": ("tokenizer", "tokenizer/tokenizer.json"),
    "reference log-probabilities": ("sft_logps", "logps.safetensors"),
    "scores": ("evaluation", "scores.json"),
    "manifest": ("base", "manifest.json"),
}


def _artifact(root: Path, stage: str) -> Path:
    (found,) = [p for p in (root / "artifacts").iterdir() if re.fullmatch(rf"{stage}-[0-9a-f]{{12}}", p.name)]
    return found


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _errors(done: "subprocess.CompletedProcess[str]") -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("what", FILES)
def test_a_flipped_byte_is_refused_by_stage_and_file(finished: Path, run: Run, tmp_path: Path, what: str) -> None:
    """T-C7."""
    root, (stage, name) = tmp_path / "root", FILES[what]
    shutil.copytree(finished, root)
    shutil.rmtree(_artifact(root, "report"))  # so that there is work
    _flip(_artifact(root, stage) / name)
    runs = sorted((root / "runs").rglob("*"))
    done = run(root)
    (line,) = _errors(done)
    assert done.returncode == 1 and line.startswith(f"error: {stage}: ") and f"/{name}: " in line
    assert f"delete {_artifact(root, stage)} to make it again" in line
    assert sorted((root / "runs").rglob("*")) == runs


def test_what_was_refused_is_made_again_when_its_folder_is_deleted(finished: Path, run: Run, tmp_path: Path) -> None:
    root, name = tmp_path / "root", "tokenizer/tokenizer.json"
    shutil.copytree(finished, root)
    expected = (_artifact(root, "tokenizer") / name).read_bytes()
    _flip(_artifact(root, "tokenizer") / name)
    assert run(root).returncode == 1
    shutil.rmtree(_artifact(root, "tokenizer"))
    assert run(root, "until=tokenizer").returncode == 0
    assert (_artifact(root, "tokenizer") / name).read_bytes() == expected


def test_chat_refuses_a_damaged_model(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    _flip(_artifact(root, "merge") / "model" / "model.safetensors")
    words = [command(root)[0], "-m", "solar.chat", "merge", "prompt=hello", f"root={root}"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and len(_errors(done)) == 1 and "its content was changed" in done.stderr


def test_a_link_in_the_place_of_an_unfinished_stage_is_refused_and_its_target_stays(
    finished: Path, run: Run, tmp_path: Path
) -> None:
    root, precious = tmp_path / "root", tmp_path / "precious"
    shutil.copytree(finished, root)
    precious.mkdir()
    (precious / "thesis").write_text("years of work")
    folder = _artifact(root, "report")
    shutil.rmtree(folder)
    folder.with_name(f"{folder.name}.partial").symlink_to(precious)
    done = run(root)
    (line,) = _errors(done)
    assert done.returncode == 1 and ".partial: is a link" in line
    assert (precious / "thesis").read_text() == "years of work"


def _flip_tensors(newest: Path) -> None:
    _flip(newest / "tensors.safetensors")


def _rename(newest: Path) -> None:
    newest.rename(newest.with_name("step-00000149"))


@pytest.mark.parametrize(
    ("spoil", "problem"), [(_flip_tensors, "tensors.safetensors is not what was written"), (_rename, "not 149")]
)
def test_a_spoilt_checkpoint_costs_steps_and_changes_no_weight(
    finished: Path, run: Run, tmp_path: Path, spoil, problem: str
) -> None:
    """T-A5: the training goes on from the checkpoint before, and ends with the bytes of an undisturbed training."""
    root, weights = tmp_path / "root", "model/model.safetensors"
    shutil.copytree(finished, root)
    expected = (_artifact(root, "base") / weights).read_bytes()
    shutil.rmtree(_artifact(root, "base"))
    saving = ["until=base", "trainer.checkpoint_every_seconds=0", "trainer.keep_checkpoints=3"]
    process = subprocess.Popen(command(root, *saving), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600
    while len(list(root.glob("artifacts/base-*.partial/checkpoints/step-????????"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    spoil(max(root.glob("artifacts/base-*.partial/checkpoints/step-????????")))
    done = run(root, *saving)
    assert done.returncode == 0, done.stderr
    assert f"{problem}; training goes on from step-" in done.stderr and "Traceback" not in done.stderr
    assert (_artifact(root, "base") / weights).read_bytes() == expected
