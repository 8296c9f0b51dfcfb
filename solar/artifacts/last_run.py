"""The artifacts of the latest run by stage name, for commands that look at them."""

import json
from dataclasses import dataclass
from pathlib import Path

from solar.errors import ArtifactError, one_line
from solar.weights.digest import read_plain


@dataclass(frozen=True)
class LastRun:
    """Where a run is recorded, and the artifact folder of each stage, which may not exist yet."""

    record: Path
    folders: dict[str, Path]


def last_run(root: Path) -> LastRun | None:
    """The run that started last under `root` (`paths.root`), or None.

    Raises `ArtifactError` if its record cannot be read.
    """
    records = sorted((root / "runs").glob("*/*/artifacts.json"), key=lambda path: path.lstat().st_mtime_ns)
    if not records:
        return None
    try:
        names = json.loads(read_plain(records[-1]))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise ArtifactError(f"{records[-1]}: cannot be read ({reason}); delete the folder of that run") from error
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in names.values()
    ):
        raise ArtifactError(f"{records[-1]}: expected names of folders in artifacts/; delete the folder of that run")
    return LastRun(records[-1].parent, {stage: root / "artifacts" / name for stage, name in names.items()})
