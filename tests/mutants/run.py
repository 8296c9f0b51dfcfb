"""`python -m tests.mutants.run [NAME ...]`: break solar on purpose, one fault at a time, and see the tests find each.

`mutants.toml` lists the faults: a text in a file, the text that takes its place, and the tests that must fail. Each
fault is made in a copy of the package. Exits 1 if a fault is missed, or if its tests fail or do not run without it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("solar", "conf", "tests", "docs", "benchmarks", "pyproject.toml", "README.md")
SECONDS = 900
"""Of computing, in each process of a fault's tests, and of waiting for them."""


@dataclass(frozen=True)
class Mutant:
    """One fault."""

    name: str
    file: str
    find: str
    replace: str
    tests: list[str]
    """What pytest is called with; each must pass without the fault."""
    cpu_seconds: int = SECONDS
    """The system ends a process that computes for longer, wherever it was started: the fault may be a loop."""

    def apply(self, root: Path) -> None:
        """Make the fault below `root`."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.find) == 1, f"{self.name}: {self.file} holds the text {text.count(self.find)} times"
        path.write_text(text.replace(self.find, self.replace), encoding="utf-8")


def mutants() -> list[Mutant]:
    """All faults, in the order of the file."""
    listed = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))
    return [Mutant(name, **fields) for name, fields in listed.items()]


def outcome(mutant: Mutant, scratch: Path) -> tuple[str, str]:
    """`caught`, `missed`, or `broken` where no test has run; and what pytest printed."""
    root = scratch / mutant.name.replace(" ", "_")
    root.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    mutant.apply(root)
    result, printed = _verdict(mutant.tests, root, mutant.cpu_seconds)
    shutil.rmtree(root)
    return result, printed


def _verdict(tests: Iterable[str], root: Path, cpu_seconds: int) -> tuple[str, str]:
    """`missed` where all tests pass; tests that are skipped, or cannot be collected, say nothing."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", "--tb=short", *tests]
    limited = ["sh", "-c", f'ulimit -S -t {cpu_seconds}; exec "$@"', "sh", *command]
    try:
        ran = subprocess.run(
            limited, cwd=root, env=environment, capture_output=True, text=True, timeout=max(SECONDS, cpu_seconds)
        )
    except subprocess.TimeoutExpired as error:
        return "caught", str(error)
    if ran.returncode == -signal.SIGXCPU:
        return "caught", f"stopped after {cpu_seconds} seconds of computing"
    ran_any = re.search(r"\d+ (passed|failed|error)", "".join(ran.stdout.splitlines()[-1:]))
    result = {0: "missed", 1: "caught"}.get(ran.returncode, "broken")
    return result if ran_any else "broken", ran.stdout + ran.stderr


def main(names: list[str]) -> int:
    """Run the named faults, or all."""
    chosen = [mutant for mutant in mutants() if not names or mutant.name in names]
    if unknown := set(names) - {mutant.name for mutant in chosen}:
        sys.exit(f"no such mutant: {', '.join(sorted(unknown))}")
    result, printed = _verdict(sorted({test for mutant in chosen for test in mutant.tests}), ROOT, 4 * SECONDS)
    if result != "missed":
        sys.exit(f"the tests fail without any fault; mend them first\n{printed}")
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        results = []
        for mutant, (result, printed) in zip(
            chosen, pool.map(lambda each: outcome(each, Path(scratch)), chosen), strict=True
        ):
            print(f"{result:8} {mutant.name}" + (f"\n{printed}" if result == "broken" else ""), flush=True)
            results.append(result)
    print(f"{results.count('caught')} of {len(results)} caught; {results.count('missed')} missed")
    return 0 if set(results) <= {"caught"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
