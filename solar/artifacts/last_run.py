"""The artifacts of the latest run by stage name, for commands that look at them."""

import json
from dataclasses import dataclass
from pathlib import Path

from solar.artifacts.known import Known
from solar.artifacts.manifest import NAME
from solar.artifacts.store import Artifact, Store, read_artifact
from solar.errors import ArtifactError
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
        raise ArtifactError(f"{records[-1]}: cannot be read ({error}); delete the folder of that run") from error
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in names.values()
    ):
        raise ArtifactError(f"{records[-1]}: expected names of folders in artifacts/; delete the folder of that run")
    return LastRun(records[-1].parent, {stage: root / "artifacts" / name for stage, name in names.items()})


def refuse_damaged(folder: Path) -> None:
    """Raises `ArtifactError` if the folder is an artifact, or a folder of one, that is not as its stage left it.

    A model's folder from elsewhere is no artifact, and passes.
    """
    folder = folder.absolute()
    artifact = next((place for place in (folder, folder.parent) if _is_artifact(place)), None)
    if artifact is None:
        return
    root = artifact.parent.parent
    store = Store(artifact.parent, Known.load(root) if artifact.parent.name == "artifacts" else Known())
    store.verify(Artifact(artifact, read_artifact(artifact, artifact.name)), artifact.name)
    store.known.save()


def _is_artifact(folder: Path) -> bool:
    """Whether a folder has the name of an artifact, `stage-id`, and a manifest."""
    label, _, identity = folder.name.rpartition("-")
    return bool(label) and len(identity) == 12 and (folder / NAME).exists()
