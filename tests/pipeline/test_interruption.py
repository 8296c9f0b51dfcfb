"""Kill it at any moment; the next run goes on, and ends with the same bytes."""

import hashlib
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Run, command


def _sha256(root: Path, stage: str) -> str:
    (folder,) = [p for p in (root / "artifacts").iterdir() if re.fullmatch(rf"{stage}-[0-9a-f]{{12}}", p.name)]
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def _interrupted(root: Path, number: signal.Signals, overrides: list[str], stage: str = "base") -> int:
    """Exit code of a training that a signal hit; a training that ended before the signal came is begun again."""
    for _ in range(20):
        process = subprocess.Popen(command(root, *overrides), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(root.glob(f"artifacts/{stage}-*.partial/checkpoints/*/*")):
            time.sleep(0.02)
        process.send_signal(number)
        output = process.communicate()
        finished = list(root.glob(f"artifacts/{stage}-????????????"))
        if not finished:
            return process.returncode
        assert process.returncode in (0, 75, -number), output
        shutil.rmtree(finished[0])
    raise AssertionError("every training ended before its signal came")


@pytest.mark.parametrize(("number", "code"), ((signal.SIGKILL, -9), (signal.SIGTERM, 75)))
def test_interrupted_training_goes_on_to_the_same_weights(
    number: signal.Signals, code: int, finished: Path, run: Run, tmp_path: Path
) -> None:
    """T-A1, T-A7."""
    steps = ["trainer.checkpoint_every_seconds=0.1", "until=base"]
    assert _interrupted(tmp_path, number, steps) == code
    done = run(tmp_path, *steps)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("4 done, 1 to run")
    assert _sha256(tmp_path, "base") == _sha256(finished, "base")
    assert not list(tmp_path.glob("artifacts/*.partial"))


def test_killed_between_stages_keeps_what_is_done(run: Run, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "until=base"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.glob("artifacts/tokenizer-????????????")):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    done = run(tmp_path, "until=tokenizer")
    assert done.stdout.splitlines()[0].endswith("2 done, 0 to run")


STEPWISE = ["+experiment=stepwise_dpo", "stages.sdpo.duration=6 steps", "until=sdpo"]
LATER = {stage: [f"until={stage}"] for stage in ("pretrain", "sft", "dpo_a")} | {"sdpo_2": STEPWISE}
"""Stage -> the run that ends with it; `sdpo_2` is the last step of a stepwise DPO."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", LATER)
def test_each_stage_that_trains_goes_on_to_the_same_weights(
    stage: str, finished: Path, run: Run, tmp_path: Path
) -> None:
    """T-A1: killed at its first checkpoint."""
    words = [*LATER[stage], "trainer.checkpoint_every_seconds=0"]
    calm, hit = tmp_path / "calm", tmp_path / "hit"
    for root in (calm, hit):
        shutil.copytree(finished, root)
        for path in root.glob(f"artifacts/{stage}-*"):
            shutil.rmtree(path)
    done = run(calm, *words)
    assert done.returncode == 0, done.stderr
    assert _interrupted(hit, signal.SIGKILL, words, stage) == -9
    done = run(hit, *words)
    assert done.returncode == 0, done.stderr
    assert _sha256(hit, stage) == _sha256(calm, stage)
