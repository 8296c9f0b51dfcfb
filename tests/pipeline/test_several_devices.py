"""Two processes on one machine do what one does."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Run

# Short and slow on purpose: a model this small amplifies rounding, at a high rate within tens of steps.
GENTLE = ["until=base", "stages.base.duration=12 steps", "stages.base.optimizer.lr=5e-4", "trainer.log_every_steps=1"]
TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.micro_batch_size=2"]


def _losses(root: Path) -> list[float]:
    (log,) = root.glob("artifacts/base-????????????/logs/metrics.jsonl")
    return [row["loss"] for row in map(json.loads, log.read_text().splitlines()) if "loss" in row]


def test_two_gloo_processes_give_the_loss_of_one(run: Run, tmp_path: Path) -> None:
    """T-G3."""
    for name, trainer in (("one", []), ("two", TWO)):
        done = run(tmp_path / name, *GENTLE, *trainer)
        assert done.returncode == 0, done.stdout + done.stderr
    alone, together = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(alone) == len(together) == 12
    assert max(abs(a - b) for a, b in zip(alone, together, strict=True)) < 1e-5


def test_a_rank_that_cannot_work_ends_the_run_in_one_line(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path, "until=base", *TWO, "stages.tokenizer.vocab_size=500")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: "), done.stderr


@pytest.mark.slow
def test_two_machines_that_meet_without_slurm_train_one_model(run: Run, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = ["trainer.devices=1", "trainer.num_nodes=2", f"trainer.rendezvous=localhost:{port}"]
    steps = ["until=base", "stages.base.duration=4 steps", "trainer.log_every_steps=1"]
    other = subprocess.Popen([sys.executable, "-m", "solar.join", str(tmp_path), "--jobs", "1"], stdout=subprocess.PIPE)
    try:
        done = run(tmp_path, *steps, *nodes, "trainer.strategy=ddp", "trainer.micro_batch_size=2")
        assert done.returncode == 0, done.stdout + done.stderr
        output, _ = other.communicate(timeout=1200)
        assert output.endswith(b"done\n")
    finally:
        other.kill()
    assert len(_losses(tmp_path)) == 4
