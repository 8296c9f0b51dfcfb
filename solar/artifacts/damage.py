"""Commands that are given a folder: is it an artifact, and is the artifact as its stage left it?"""

import re
from pathlib import Path

_NAME = re.compile(r".+-[0-9a-f]{12}")


def refuse_damaged(folder: Path) -> None:
    """Raises `ArtifactError` if the folder is an artifact, or a folder of one, whose files are not those of its stage.

    A model's folder from elsewhere is no artifact, and passes.
    """
    folder = folder.absolute()
    for place in (folder, folder.parent):
        if _NAME.fullmatch(place.name) and (place / "manifest.json").exists():
            _refuse_damaged_artifact(place)
            return


def _refuse_damaged_artifact(place: Path) -> None:
    from solar.artifacts.known import Known  # importing these takes as long as growing a small model
    from solar.artifacts.reading import read_artifact
    from solar.artifacts.store import Artifact, Store

    known = Known.load(place.parent.parent) if place.parent.name == "artifacts" else Known()
    Store(place.parent, known).verify(Artifact(place, read_artifact(place, place.name)), place.name)
    known.save()
