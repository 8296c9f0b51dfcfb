"""`python -m solar.join ROOT`: lend this machine to the runs below ROOT, a folder that all machines share.

Each training stage of a run with `trainer.num_nodes` and `trainer.rendezvous` leaves a job file; this machine starts
its share of the ranks, waits until they end, and looks for the next one, until it is stopped.
"""

import argparse
import sys
import time
from pathlib import Path

from solar.engine.job import Job
from solar.engine.ranks import Ranks

LOOK_EVERY_SECONDS = 1.0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="solar.join", description=__doc__)
    parser.add_argument("root", type=Path, help="paths.root of the runs")
    parser.add_argument("--jobs", type=int, help="leave after so many")
    arguments = parser.parse_args()
    seen: set[tuple[Path, int]] = set()
    while arguments.jobs is None or len(seen) < arguments.jobs:
        for job in _jobs(arguments.root):
            attempt = (job, job.stat().st_mtime_ns)
            if attempt not in seen:
                seen.add(attempt)
                if _work(job):
                    return
        time.sleep(LOOK_EVERY_SECONDS)


def _jobs(root: Path) -> list[Path]:
    found = sorted(root.glob("artifacts/*.partial/job/job.json"))
    return [job for job in found if Job.read(job).trainer["num_nodes"] > 1 and Job.read(job).trainer["rendezvous"]]


def _work(job: Path) -> bool:
    """Whether someone asked this process to stop meanwhile."""
    ranks = Ranks(Job.read(job).trainer_config, job, job.parents[1] / "logs" / f"joined-{time.time_ns()}.log")
    code = ranks.run(lambda line: None)
    sys.stdout.write(f"{job.parents[1].name}: {'done' if code == 0 else f'ended with code {code}'}\n")
    return ranks.signals > 0


if __name__ == "__main__":
    main()
