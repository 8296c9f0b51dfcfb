"""Cases in fresh processes of one thread; ratios are taken within a round, then their median.

Speed is counted per CPU second, which busy neighbours of the machine disturb least. A full run has a process for every
case, one after the other. A quick run shares processes between cases, for a process spends most of its seconds on
imports, and runs them at once, so that they disturb each other alike: there only a process's first case tells of its
start, and a peak is that of all so far.
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
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIVALS = os.environ.get("SOLAR_RIVALS")
"""A Python that has torch, transformers and trl; this one, if not given."""
BEGAN = time.perf_counter()


class Meter:
    """What one case used, from after its `warm` first steps of `batch` rows to the end of its last."""

    def __init__(self, warm: int, steps: int, batch: int) -> None:
        self.warm, self.steps, self.batch, self.done = warm, steps, batch, 0
        self._cpu, self._wall = time.process_time(), time.perf_counter()
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


def run_process(script: str, cases: list[str], quick: bool, folder: Path, rival: bool) -> dict[str, dict[str, float]]:
    """The reports of the cases whose packages are installed."""
    python = RIVALS if rival and RIVALS else sys.executable
    chosen = [argument for case in cases for argument in ("--case", case)]
    command = [python, script, *chosen, "--folder", str(folder), *(["--quick"] if quick else [])]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "training")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{', '.join(cases)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(script: str, groups: list[list[str]], rivals: set[str], quick: bool, rounds: int, folder: Path) -> "Rounds":
    """Every case once a round; a quick run keeps each group in one process, whose first case says whose it is."""
    found = Rounds()
    processes = groups if quick else [[case] for group in groups for case in group]

    def run(cases: list[str]) -> None:
        print(", ".join(cases), file=sys.stderr)
        for case, report in run_process(script, cases, quick, folder, cases[0] in rivals).items():
            found.setdefault(case, []).append(report)

    for _ in range(rounds):
        with ThreadPoolExecutor(len(processes) if quick else 1) as pool:
            list(pool.map(run, processes))
    return found


def report_cases(cases: list[str], needs: dict[str, str], run: Callable[[str], dict[str, float]]) -> None:
    """What a process prints for `run_process`; `needs`: case -> a package without which it is left out."""
    reports = {case: run(case) for case in cases if case not in needs or find_spec(needs[case])}
    for report in [*reports.values()][1:]:
        del report["first_step_cpu_seconds"], report["first_step_seconds"]
    print(json.dumps(reports))


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
            speed, peak = (
                statistics.median(report[name] for report in reports) for name in ("per_cpu_second", "peak_mb")
            )
            starts = [report["first_step_cpu_seconds"] for report in reports if "first_step_cpu_seconds" in report]
            start = f"{statistics.median(starts):.1f}" if starts else "-"
            lines.append(f"| {case} | {speed:,.2f} | {peak:,.0f} | {start} |")
        return "\n".join(lines)


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    parser.add_argument("--json", action="store_true", help="one line of JSON: the ratios")
    parser.add_argument("--case", action="append", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()
