"""What was injected, survived and found: a line of JSON for each round, and a summary."""

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Round:
    """One round: faults, and how the runs ended."""

    faults: list[str]
    done: list[str]
    """What the faults did, in words."""
    outputs: list[str]
    """Files of the runs' standard error."""
    codes: list[int]
    lines: list[str]
    """Error lines of the runs."""
    findings: list[str]
    """Mistakes of solar."""
    seconds: float


@dataclass
class Tally:
    """Counts over all rounds."""

    log: Path
    rounds: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, round_: Round) -> None:
        self.rounds += 1
        self.injected.update(round_.faults)
        self.survived.update(() if round_.findings else round_.faults)
        self.codes.update(round_.codes)
        self.findings += [f"round {self.rounds}: {line}" for line in round_.findings]
        self.write({"round": self.rounds, **asdict(round_)})

    def write(self, line: dict[str, object]) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def summary(self, expected: Iterable[str]) -> str:
        """Counts by fault and by exit code; `expected` faults are listed also if they were never injected."""
        names = list(dict.fromkeys([*expected, *self.injected]))
        rows = [f"{name:32} {self.injected[name]:8} {self.survived[name]:8}" for name in names]
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        minutes = (time.monotonic() - self.started) / 60
        head = f"{self.rounds} rounds in {minutes:.1f} min; exit codes {codes}; {len(self.findings)} findings"
        return "\n".join([head, f"{'fault':32} injected survived", *rows, *self.findings])
