"""Measures whole commands, start-up included. Ratios are taken within a round, then their median."""

import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MERGEKIT = os.environ.get("SOLAR_MERGEKIT") or shutil.which("mergekit-yaml")


@dataclass
class Case:
    """The figures of one command, one for each round."""

    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    def run(self, command: list[str]) -> None:
        """Run the command once. Its peak memory is at least that of this process when it forks."""
        began = time.perf_counter()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{command[0]} failed: {said.decode()[-1000:]}")
        self.wall_seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(usage.ru_utime + usage.ru_stime)
        self.peak_mb.append(usage.ru_maxrss / 1024)

    def row(self, name: str, cp: "Case") -> str:
        """A line of the table below `HEAD`."""
        wall, cpu = self.wall_seconds, statistics.median(self.cpu_seconds)
        told = f"{statistics.median(wall):.2f} [{min(wall):.2f}-{max(wall):.2f}]"
        return f"| {name} | {told} | {ratio(self, cp):.2f} | {cpu:.2f} | {max(self.peak_mb):.0f} |"


def settle(folder: Path, nbytes: int) -> None:
    """Write and delete a file of `nbytes`.

    A virtual machine's memory costs more the first time it is touched: whoever writes next finds it touched.
    """
    path, chunk = folder / "settled", bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(nbytes // len(chunk)):
            file.write(chunk)
    path.unlink()


HEAD = "| case | wall s [min-max] | / cp | CPU s | peak MB |\n| --- | --- | --- | --- | --- |"


def ratio(over: Case, under: Case, what: str = "wall_seconds") -> float:
    """Over the rounds that both commands ran."""
    pairs: zip[tuple[float, float]] = zip(getattr(over, what), getattr(under, what), strict=False)
    return statistics.median(a / b for a, b in pairs)
