"""`python -m solar.sweep FOLDER` draws the plot of a sweep again, from `outputs/sweeps/NAME/TIME`.

A sweep (`python -m solar.run --multirun ...`) draws the plot after each of its jobs, and lists the objective of each
finished job.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from solar.arguments import run
from solar.artifacts.atomic import write_atomically
from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Artifact
from solar.errors import ArtifactError
from solar.redaction import redact

if TYPE_CHECKING:
    from solar.report.sweep import Job

JOB_FILE = "job.json"


def add_job(
    artifacts: Mapping[str, Artifact], objective: str | None, value: float | None, overrides: Sequence[str]
) -> list[str]:
    """If this run is a job of a sweep, record its artifacts and objective, and draw the plot of all finished jobs.

    Returns lines to print: the objective of each finished job, and the path of the plot, if there is one.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return []
    folder = Path(HydraConfig.get().runtime.output_dir)
    written = (override.lstrip("+~").partition("=") for override in redact(overrides))
    record = {
        "overrides": {key: value for key, _, value in written},
        "artifacts": {stage: os.path.relpath(artifact.path, folder) for stage, artifact in artifacts.items()},
        "objective": None if objective is None else {objective: value},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / JOB_FILE, json.dumps(record, indent=1) + "\n")
    picture = draw(folder.parent)
    return [*objectives(jobs_of(folder.parent)), *([] if picture is None else [str(picture)])]


def redact_sweep_file() -> None:
    """Take secrets out of the `multirun.yaml` that Hydra writes into the folder of a sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return
    path = Path(HydraConfig.get().runtime.output_dir).parent / "multirun.yaml"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if (clean := redact(text)) != text:
            write_atomically(path, clean)


def draw(sweep: Path) -> Path | None:
    """Write `<what was swept>.png` and `.json` into the folder of a sweep; None if no two growths can be compared.

    Raises `ArtifactError` if the folder is not a sweep's, or if an artifact of a job is gone.
    """
    from solar.report.sweep import write_sweep

    return write_sweep(jobs_of(sweep), sweep)


def jobs_of(sweep: Path) -> "list[Job]":
    """The finished jobs of a sweep, in the order they were started; raises as `draw` does."""
    from solar.report.entries import Entry, Run
    from solar.report.sweep import Job

    records = sorted(sweep.glob(f"*/{JOB_FILE}"), key=lambda path: (len(path.parent.name), path.parent.name))
    if not records:
        raise ArtifactError(f"{sweep}: no finished job found, expected a sweep's folder, outputs/sweeps/NAME/TIME")
    jobs = []
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        entries = []
        for stage, place in record["artifacts"].items():
            manifest = Manifest.read(path.parent / place)
            entries.append(Entry(stage, manifest.kind, path.parent / place, asdict(manifest)))
        jobs.append(Job(record["overrides"], Run(entries), record.get("objective")))
    return jobs


def objectives(jobs: "list[Job]") -> list[str]:
    """A line for each of several jobs that have an objective: the swept values and the objective.

    >>> from solar.report.entries import Run
    >>> from solar.report.sweep import Job
    >>> objectives([Job({"m.t": t}, Run([]), {"loss": value}) for t, value in (("0.2", 1.5), ("0.5", 1.25))])
    ['t=0.2  loss 1.5000', 't=0.5  loss 1.2500']
    """
    from solar.report.sweep import swept

    keys, lines = swept(jobs), []
    for job in jobs if len(jobs) > 1 else []:
        values = " ".join(f"{key.rpartition('.')[2]}={job.overrides[key]}" for key in keys if key in job.overrides)
        lines += [f"{values}  {name} {value:.4f}" for name, value in (job.objective or {}).items()]
    return lines


@dataclass
class SweepOptions:
    """The command has no options."""


def _draw(names: list[str], options: SweepOptions) -> None:
    picture = draw(Path(names[0]))
    if picture is None:
        raise ArtifactError(
            f"{names[0]}: no two growths whose base, step 0 and training are known; sweep with until=evaluation"
        )
    sys.stdout.write(f"{picture}\n")


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run(words, __doc__ or "", SweepOptions, ("FOLDER",), _draw)


if __name__ == "__main__":
    sys.exit(main())
