"""T-F4. A rank that is killed ends its run in one line; the next run goes on to the same bytes."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.ranks import kill_rank

from .conftest import Run, command

pytestmark = pytest.mark.slow
TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.micro_batch_size=2", "trainer.checkpoint_every_seconds=0"]
STEPS = ["until=base", "stages.base.duration=40 steps"]


def _weights(root: Path) -> bytes:
    (model,) = root.glob("artifacts/base-????????????/model/model.safetensors")
    return model.read_bytes()


@pytest.fixture(scope="module")
def calm(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run whose ranks nobody kills."""
    root = tmp_path_factory.mktemp("calm")
    done = run(root, *STEPS, *TWO)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_in_one_line_and_the_next_run_goes_on(
    calm: Path, run: Run, tmp_path: Path, rank: int
) -> None:
    process = subprocess.Popen(
        command(tmp_path, *STEPS, *TWO), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("artifacts/base-*.partial/checkpoints/step-????????")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    kill_rank(process.pid, rank)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "base" in line and "Traceback" not in errors
    kept = {path.name for path in tmp_path.glob("artifacts/base-*.partial/checkpoints/step-????????")}
    assert kept, "nothing to go on from"
    done = run(tmp_path, *STEPS, *TWO)
    assert done.returncode == 0, done.stderr
    assert _weights(tmp_path) == _weights(calm)
