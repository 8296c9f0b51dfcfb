"""The benchmark of accelerators runs on a CPU, so that nothing in it is untested but the chip."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ["ceilings", "correctness", "shared prompts", "packed SFT", "DPO", "pretraining"]


def _command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / "accelerator.py"), "--tiny", *words]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_every_section_runs_tiny_and_the_last_line_holds_its_figures() -> None:
    done = subprocess.run(_command(), capture_output=True, text=True, timeout=180, env=ENVIRONMENT, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    assert list(results) == SECTIONS
    assert not [row for section in results.values() for row in section.values() if "error" in row]
    ways = results["correctness"]
    assert ways["segments float32"]["states"] < 1e-5 and ways["segments float32"]["key_gradient"] < 1e-4
    assert ways["flex float32"]["states"] < 1e-5 and ways["flex float32"]["isolated"]
    for section in ("packed SFT", "DPO", "pretraining"):
        assert results[section]["tiny: ours"]["per_second"] > 0
    assert results["pretraining"]["tiny: HF Trainer"]["per_second"] > 0


@pytest.mark.slow
def test_a_run_that_is_cut_leaves_what_it_had() -> None:
    process = subprocess.Popen(
        _command(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("flex float32"):
            process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    results = json.loads(lines[-1])
    assert "copy" in results["ceilings"] and "flex float32" in results["correctness"]
    assert "pretraining" not in results


@pytest.mark.slow
def test_out_of_time_every_section_says_that_it_did_not_run() -> None:
    words = _command("--seconds", "0")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    assert results == {name: {"not run": {"reason": "out of time"}} for name in SECTIONS}
