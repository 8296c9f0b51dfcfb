"""`python -m solar.join ROOT`: lend this machine to the runs below ROOT (their `paths.root`), which all machines share.

Each training stage of a run with `trainer.num_nodes` and `trainer.rendezvous` leaves a job file; this machine starts
its share of the ranks, waits until they end, and looks for the next one, until it is stopped.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solar.arguments import run
from solar.engine.job import Job
from solar.engine.ranks import Ranks

LOOK_EVERY_SECONDS = 1.0


@dataclass
class JoinOptions:
    """Options of the command line."""

    jobs: int | None = None
    """Leave after this many jobs; never, if not given."""


def _join(names: list[str], options: JoinOptions) -> None:
    seen: set[tuple[Path, int]] = set()
    while options.jobs is None or len(seen) < options.jobs:
        for job in _jobs(Path(names[0])):
            attempt = (job, job.stat().st_mtime_ns)
            if attempt not in seen:
                seen.add(attempt)
                if _work(job):
                    return
        time.sleep(LOOK_EVERY_SECONDS)


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run(words, __doc__ or "", JoinOptions, ("ROOT",), _join)


def _jobs(root: Path) -> list[Path]:
    jobs = sorted(root.glob("artifacts/*.partial/job/job.json"))
    return [job for job in jobs if Job.read(job).trainer["num_nodes"] > 1 and Job.read(job).trainer["rendezvous"]]


def _work(job: Path) -> bool:
    """Run this machine's ranks to their end; returns whether a signal asked this process to stop meanwhile."""
    ranks = Ranks(Job.read(job).trainer_config, job, job.parents[1] / "logs" / f"joined-{time.time_ns()}.log")
    code = ranks.run(lambda line: None)
    sys.stdout.write(f"{job.parents[1].name}: {'done' if code == 0 else f'ended with code {code}'}\n")
    return ranks.signals > 0


if __name__ == "__main__":
    sys.exit(main())
