"""The benchmark of accelerators runs on a CPU, so that nothing in it is untested but the chip."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ["ceilings", "correctness", "shared prompts", "packed SFT", "DPO", "pretraining", "dus_10b", "other shapes"]


def _command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / "accelerator.py"), "--tiny", *words]


ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.slow
def test_every_section_runs_tiny_and_the_last_line_holds_its_figures() -> None:
    done = subprocess.run(_command(), capture_output=True, text=True, timeout=180, env=ENVIRONMENT, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    assert list(results) == SECTIONS[:-1]  # at tiny sizes, no shape is left for the last
    assert not [row for section in results.values() for row in section.values() if "error" in row]
    ways = results["correctness"]
    assert ways["segments float32"]["states"] < 1e-5 and ways["segments float32"]["key_gradient"] < 1e-4
    assert ways["flex float32"]["states"] < 1e-5 and ways["flex float32"]["isolated"]
    for row in ("LoRA", "QLoRA nf4", "QLoRA int8"):
        assert max(ways[row].values()) < 1e-5
    assert max(ways["ours"].values()) < 1e-4 and ways["liger"] == {"not_run": "needs CUDA"}
    assert ways["deterministic mode"] == {"again_same_bytes": True, "resumed_same_bytes": True}
    assert ways["FSDP2 on one device"]["weights"] < 1e-5
    for section in ("packed SFT", "DPO", "pretraining"):
        assert results[section]["tiny: ours"]["per_second"] > 0
    assert results["pretraining"]["tiny: HF Trainer"]["per_second"] > 0
    assert results["packed SFT"]["tiny: HF Trainer, flattening"]["per_second"] > 0
    for section, row in (("packed SFT", "TRL"), ("DPO", "TRL"), ("DPO", "TRL, reference precomputed")):
        theirs = results[section][f"tiny: {row}"]
        assert theirs["per_second"] > 0 if find_spec("trl") else theirs == {"not_run": "trl is not installed"}
    dus = results["dus_10b"]
    assert list(dus) == ["base", "grow", "pretrain", "dpo", "merge"] and dus["grow"]["layers"] == 6
    assert dus["dpo"]["margin_first"] == 0 and dus["merge"]["gb"] == pytest.approx(dus["grow"]["gb"], rel=0.02)


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


def test_a_section_that_is_late_leaves_the_next_ones_their_share(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Of 100 seconds, SFT ends after 3 + 22 + 3 + 16 = 44, and dus_10b after all; 30 s pass in each case."""
    import benchmarks.accelerator as benchmark

    now = [0.0]
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: now[0])
    run = benchmark.Run(tiny=True, seconds=100)
    deadlines = {}

    def case(*_: Any) -> dict[str, float]:
        now[0] += 30
        return {"per_second": 1.0}

    def cases(run: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        deadlines[len(deadlines)] = run.section_deadline
        for name in ("first", "second", "third"):
            yield from benchmark._measured(run, name, case, benchmark.TINY[0])

    for section in ("packed SFT", "DPO", "dus_10b"):
        run.section(section, cases)
    ran, late = {"per_second": 1.0}, {"not_run": "out of time"}
    assert run.results == {
        "packed SFT": {"first": ran, "second": ran, "third": late},
        "DPO": {"first": ran, "second": late, "third": late},
        "dus_10b": {"first": ran, "second": late, "third": late},
    }
    assert list(deadlines.values()) == pytest.approx([44, 57, 100])
    assert sum(benchmark.SHARES.values()) == pytest.approx(1) and list(benchmark.SHARES) == list(benchmark.SECTIONS)


@pytest.mark.slow
def test_out_of_time_every_section_says_that_it_did_not_run() -> None:
    words = _command("--seconds", "0")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    assert results == {name: {"not run": {"reason": "out of time"}} for name in SECTIONS}
