"""Runs cases in fresh processes of one thread that take turns, one step each. Ratios are taken within a round, then
their median.

Speed is counted per CPU second, which other work on the machine disturbs least; cases that take turns are disturbed
alike. A full run has one process for each case and starts them one after the other. A quick run shares processes
between cases, because a process spends most of its seconds on imports, and starts them all at once: there only the
first case of a process measures the start, and a peak is that of all cases so far.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIVALS = os.environ.get("SOLAR_RIVALS")
"""A Python that has torch, transformers and trl; this Python, if not given."""
TURN_IS_OVER = "a step is done"


def wait_for_turn() -> None:
    """Let each of the other processes do a step."""
    print(TURN_IS_OVER, flush=True)
    sys.stdin.readline()


class Meter:
    """What a case used, from the end of its `warm` first steps of `batch` rows to the end of its last step."""

    def __init__(self, warm: int, steps: int, batch: int) -> None:
        self.warm, self.steps, self.batch, self.done = warm, steps, batch, 0
        self._cpu = time.process_time()
        self.result: dict[str, float] = {}

    def step_done(self) -> None:
        self.done += 1
        cpu = time.process_time()
        if self.done == 1:
            self.result["first_step_cpu_seconds"] = cpu
        if self.done == self.warm:
            self._cpu = cpu
        if self.done == self.steps:
            self.result["cpu_seconds"] = cpu - self._cpu
        if self.steps > 1:  # a single step only measures the peak
            wait_for_turn()

    def report(self, units: float) -> dict[str, float]:
        """`units`: the work done in the counted steps."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        speed = units / self.result["cpu_seconds"]
        return self.result | {"units": units, "per_cpu_second": speed, "peak_mb": peak}


class CaseProcess:
    """Runs its cases up to the end of a step at each call."""

    def __init__(self, script: str, cases: list[str], quick: bool, folder: Path, rival: bool) -> None:
        print(", ".join(cases), file=sys.stderr)
        self.cases, self.said = cases, ""
        chosen = [argument for case in cases for argument in ("--case", case)]
        python = RIVALS if rival and RIVALS else sys.executable
        command = [python, script, *chosen, "--folder", str(folder), *(["--quick"] if quick else [])]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "training")])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled", "TRANSFORMERS_VERBOSITY": "error"}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, text=True, env=environment, stdin=pipe, stdout=pipe, stderr=self.errors
        )

    def at_turn(self) -> bool:
        """Wait until the process has done a step; returns whether steps are left."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.rstrip() == TURN_IS_OVER:
                return True
            self.said = line
        return False

    def take_turn(self) -> bool:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.at_turn()

    def reports(self) -> dict[str, dict[str, float]]:
        """Case -> figures, for the cases whose packages are installed."""
        if self.process.wait():
            self.errors.seek(0)
            raise SystemExit(f"{', '.join(self.cases)} failed:\n{self.errors.read()[-3000:]}")
        found: dict[str, dict[str, float]] = json.loads(self.said)
        return found


def compare(script: str, groups: list[list[str]], rivals: set[str], quick: bool, rounds: int, folder: Path) -> "Rounds":
    """Every case once a round. A quick run keeps each group in one process, whose Python the first case decides."""
    found = Rounds()
    for _ in range(rounds):
        if quick:
            processes = [CaseProcess(script, cases, True, folder, cases[0] in rivals) for cases in groups]
            waiting = [process for process in processes if process.at_turn()]
        else:
            processes, waiting = [], []
            for case in (case for group in groups for case in group):
                processes.append(CaseProcess(script, [case], False, folder, case in rivals))
                waiting += [processes[-1]] if processes[-1].at_turn() else []
        while waiting:
            waiting = [process for process in waiting if process.take_turn()]
        for process in processes:
            for case, report in process.reports().items():
                found.setdefault(case, []).append(report)
    return found


def report_cases(cases: list[str], needs: dict[str, str], run: Callable[[str], dict[str, float]]) -> None:
    """What a process prints for `run_process`. `needs`: case -> a package without which the case is left out."""
    reports = {case: run(case) for case in cases if case not in needs or find_spec(needs[case])}
    for report in [*reports.values()][1:]:
        del report["first_step_cpu_seconds"]
    print(json.dumps(reports))


class Rounds(dict[str, list[dict[str, float]]]):
    """Reports by case, one for each round."""

    def ratio(self, one: str, other: str, what: str = "per_cpu_second") -> float | None:
        """Median over rounds of `one` / `other`; None where either is absent."""
        if one not in self or other not in self:
            return None
        pairs = zip(self[one], self[other], strict=True)
        return round(statistics.median(left[what] / right[what] for left, right in pairs), 3)

    def table(self, unit: str) -> str:
        """One line of medians for each case."""
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
