"""Cases in turn, each in a fresh process of one thread; ratios are taken within a round, then their median.

Speed is counted per CPU second, which busy neighbours of the machine disturb least.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIVALS = os.environ.get("SOLAR_RIVALS")
"""A Python that has torch, transformers and trl; this one, if not given."""
BEGAN = time.perf_counter()


class Meter:
    """What one case used, from after its `warm` first steps to the end of its last."""

    def __init__(self, warm: int, steps: int) -> None:
        self.warm, self.steps, self.done = warm, steps, 0
        self.result: dict[str, float] = {}

    def step_done(self) -> None:
        self.done += 1
        cpu, wall = time.process_time(), time.perf_counter()
        if self.done == 1:
            self.result |= {"first_step_cpu_seconds": cpu, "first_step_seconds": wall - BEGAN}
        if self.done == self.warm:
            self._cpu, self._wall = cpu, wall
        if self.done == self.steps:
            self.result |= {"cpu_seconds": cpu - self._cpu, "seconds": wall - self._wall}

    def report(self, units: float) -> dict[str, float]:
        """`units`: what was done in the counted steps."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        speed = units / self.result["cpu_seconds"]
        return self.result | {"units": units, "per_cpu_second": speed, "peak_mb": peak}


def run_case(script: str, case: str, quick: bool, folder: Path, rival: bool) -> dict[str, float] | None:
    """The case's report; None where the rival is not installed."""
    python = RIVALS if rival and RIVALS else sys.executable
    command = [python, script, "--case", case, "--folder", str(folder), *(["--quick"] if quick else [])]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "training")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(script: str, cases: dict[str, Callable[[], bool]], quick: bool, rounds: int, folder: Path) -> "Rounds":
    """Every case once a round; `cases`: name -> whether it is a rival's."""
    found = Rounds()
    for python in {sys.executable, RIVALS or sys.executable}:  # so that the first case does not pay for a cold disk
        subprocess.run([python, "-c", "import torch, transformers, pytorch_lightning"], capture_output=True)
    for number in range(rounds):
        for case, is_rival in cases.items():
            print(f"round {number + 1}/{rounds}: {case}", file=sys.stderr)
            report = run_case(script, case, quick, folder, is_rival())
            if report is not None:
                found.setdefault(case, []).append(report)
    return found


class Rounds(dict[str, list[dict[str, float]]]):
    """Reports by case, a round each."""

    def ratio(self, one: str, other: str, what: str = "per_cpu_second") -> float | None:
        """Median over rounds of `one` / `other`; None where either is absent."""
        if one not in self or other not in self:
            return None
        pairs = zip(self[one], self[other], strict=True)
        return round(statistics.median(left[what] / right[what] for left, right in pairs), 3)

    def table(self, unit: str) -> str:
        """One line a case: medians."""
        lines = [f"| case | {unit} / CPU s | peak MB | CPU s to first step |", "| --- | --- | --- | --- |"]
        for case, reports in self.items():
            values = [
                statistics.median(report[name] for report in reports)
                for name in ("per_cpu_second", "peak_mb", "first_step_cpu_seconds")
            ]
            lines.append(f"| {case} | {values[0]:,.2f} | {values[1]:,.0f} | {values[2]:.1f} |")
        return "\n".join(lines)


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    parser.add_argument("--json", action="store_true", help="one line of JSON: the ratios")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()
