"""The artifacts of the latest run by stage name, for commands that look at them."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LastRun:
    """Where a run is recorded, and the artifact folder of each stage, which may not exist yet."""

    record: Path
    folders: dict[str, Path]


def last_run(root: Path) -> LastRun | None:
    """The run that started last under `root` (`paths.root`), or None."""
    records = sorted((root / "runs").glob("*/*/artifacts.json"), key=lambda path: path.stat().st_mtime_ns)
    if not records:
        return None
    names: dict[str, str] = json.loads(records[-1].read_text(encoding="utf-8"))
    return LastRun(records[-1].parent, {stage: root / "artifacts" / name for stage, name in names.items()})
