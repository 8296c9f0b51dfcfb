"""`python -m solar.sweep FOLDER` draws the plot of a sweep again, from `outputs/sweeps/NAME/TIME`.

A sweep (`python -m solar.run --multirun ...`) draws it by itself after each of its jobs.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from solar.artifacts.manifest import Manifest, write_atomically
from solar.artifacts.store import Artifact
from solar.errors import ArtifactError, SolarError

JOB_FILE = "job.json"


def add_job(artifacts: Mapping[str, Artifact]) -> Path | None:
    """If this run is a job of a sweep, remember what it made, and draw the plot of all jobs so far.

    Returns the picture, if there is one.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return None
    folder = Path(HydraConfig.get().runtime.output_dir)
    written = (override.lstrip("+~").partition("=") for override in HydraConfig.get().overrides.task)
    said = {
        "overrides": {key: value for key, _, value in written},
        "artifacts": {stage: os.path.relpath(artifact.path, folder) for stage, artifact in artifacts.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / JOB_FILE, json.dumps(said, indent=1) + "\n")
    return draw(folder.parent)


def draw(sweep: Path) -> Path | None:
    """Write `<what was swept>.png` and `.json` into the folder of a sweep; None if no two growths can be compared.

    Raises `ArtifactError` if it is no sweep's folder, or if an artifact of a job is gone.
    """
    from solar.report.entries import Entry, Run
    from solar.report.sweep import Job, write_sweep

    found = sorted(sweep.glob(f"*/{JOB_FILE}"), key=lambda path: (len(path.parent.name), path.parent.name))
    if not found:
        raise ArtifactError(f"{sweep}: no finished job found, expected a sweep's folder, outputs/sweeps/NAME/TIME")
    jobs = []
    for path in found:
        said = json.loads(path.read_text(encoding="utf-8"))
        entries = []
        for stage, place in said["artifacts"].items():
            manifest = Manifest.read(path.parent / place)
            entries.append(Entry(stage, manifest.kind, path.parent / place, asdict(manifest)))
        jobs.append(Job(said["overrides"], Run(entries)))
    return write_sweep(jobs, sweep)


def main(words: list[str]) -> int:
    """The command; returns its exit status."""
    if len(words) != 1 or words[0].startswith("-"):
        sys.stdout.write(f"{__doc__}\n")
        return 0 if words and words[0] in ("-h", "--help") else 2
    try:
        picture = draw(Path(words[0]))
        if picture is None:
            raise ArtifactError(
                f"{words[0]}: no two growths whose base, step 0 and training are known; sweep with until=evaluation"
            )
    except SolarError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{picture}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
