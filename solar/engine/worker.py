"""One rank of a stage that trains on several devices; started by torchrun, told by a job file."""

import json
import os
import sys
from pathlib import Path

from solar.engine.job import Job
from solar.engine.launch import PROGRESS, RESUMABLE, resolve
from solar.errors import Interrupted, SolarError


def main(path: Path) -> int:
    """Do the rank's share; rank 0 leaves the metrics, or what went wrong, beside the job."""
    first = int(os.environ.get("RANK", "0")) == 0
    config, inputs, output, context = Job.read(path).arguments(_say if first else _keep_quiet)
    try:
        metrics = resolve(config.kind)(config, inputs, output, context)
    except Interrupted:
        (path.parent / "interrupted").touch()
        return RESUMABLE
    except SolarError as error:
        (path.parent / "error").write_text(str(error), encoding="utf-8")
        return 1
    if first:
        (path.parent / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{PROGRESS}{text}\n")
    sys.stdout.flush()


def _keep_quiet(text: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
