"""`python -m tests.faults.soak [--minutes 30] [--seed 1] [--log soak.jsonl]`: a soak, its log, and a summary.

Exits 1 if solar made a mistake, or if a soak of at least 20 minutes did not see each fault survived once.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from tests.faults.soak import hashes
from tests.faults.soak.at_rest import AT_REST
from tests.faults.soak.disks import disk_at
from tests.faults.soak.driver import Soak
from tests.faults.soak.running import ON_RANKS, RUNNING
from tests.faults.soak.runs import RANKS, SWEEP, Launcher, others_may_write
from tests.faults.soak.tally import Tally

FULL_MINUTES = 20
"""A soak that is shorter leaves the runs on two ranks out, and need not see every fault."""
LEAST_ROUNDS = 3
"""However slow the machine is."""
FIRST_STAGES = ("docs", "tokenizer", "pretrain_data", "init")
"""What the store of the runs on two ranks starts with."""


def soak(minutes: float, seed: int, log: Path, place: Path) -> int:
    """The exit status. `place`: an empty folder for stores and outputs, which stays if something was found."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    tally, draw = Tally(log), random.Random(seed)
    with disk_at(place / "disk") as own_disk:
        soaks = [_one_process(place, tally, draw, own_disk)]
        if minutes >= FULL_MINUTES:
            soaks.append(_on_ranks(place, tally, draw))
        tally.started = time.monotonic()
        while tally.rounds < LEAST_ROUNDS or time.monotonic() < tally.started + minutes * 60:
            soaks[-1 if tally.rounds % 5 == 4 else 0].round()
            sys.stdout.write(f"round {tally.rounds}, {len(tally.findings)} findings\n")
            sys.stdout.flush()
        for each in soaks:
            each.finish()
    expected = [name for each in soaks for name in (*each.forms, *each.at_rest, *each.running)]
    missed = [name for name in dict.fromkeys(expected) if not tally.survived[name]] if minutes >= FULL_MINUTES else []
    summary = tally.summary(expected)
    log.with_suffix(".txt").write_text(summary + "\n", encoding="utf-8")
    sys.stdout.write(summary + "\n" + "".join(f"never survived: {name}\n" for name in missed))
    return 1 if tally.findings or missed else 0


def _one_process(place: Path, tally: Tally, draw: random.Random, own_disk: bool) -> Soak:
    disk = place / "disk"
    forms = ["alone", "clock jumps", "two at once", "sweep", *(["two users"] if others_may_write(disk) else [])]
    running = {name: fault for name, fault in RUNNING.items() if own_disk or name != "disk full"}
    calm = _calm(Launcher(place / "calm", place / "calm-logs"), SWEEP)
    launcher = Launcher(disk / "store", place / "logs")
    _copy(place / "calm", disk / "store", {name.rpartition("-")[0] for name in calm})
    return Soak(launcher, calm, draw, tally, forms, SWEEP, AT_REST, running, disk if own_disk else None)


def _on_ranks(place: Path, tally: Tally, draw: random.Random) -> Soak:
    for name in ("calm-ranks", "ranks"):
        _copy(place / "calm", place / name, FIRST_STAGES)
    calm = _calm(Launcher(place / "calm-ranks", place / "calm-ranks-logs"), RANKS)
    return Soak(Launcher(place / "ranks", place / "ranks-logs"), calm, draw, tally, ["ranks"], RANKS, {}, ON_RANKS)


def _copy(calm: Path, root: Path, stages: Collection[str]) -> None:
    """Give a store the artifacts of some stages, under the rights of its own folder."""
    (root / "artifacts").mkdir(parents=True)
    for folder in (calm / "artifacts").iterdir():
        if folder.name.rpartition("-")[0] in stages:
            shutil.copytree(folder, root / "artifacts" / folder.name, copy_function=shutil.copyfile)


def _calm(launcher: Launcher, words: list[str]) -> hashes.Store:
    run = launcher.start(words)
    if run.process.wait() != 0:
        raise SystemExit(f"error: the calm run failed: {run.err.read_text(encoding='utf-8')}")
    return hashes.hashes(launcher.root)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("soak.jsonl"))
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it, and so would all runs
    place = Path(tempfile.mkdtemp(prefix="solar-soak-"))
    place.chmod(0o755)  # other users work in it
    status = soak(options.minutes, options.seed, options.log, place)
    if status == 0:
        shutil.rmtree(place)
    else:
        sys.stdout.write(f"outputs are in {place}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
