"""A finished artifact: its manifest, and the files that it lists."""

from pathlib import Path

from solar.artifacts import claim
from solar.artifacts.listing import files_below
from solar.artifacts.manifest import NAME, Manifest
from solar.errors import ArtifactError

CHECKPOINTS = "checkpoints"
"""Folder in an unfinished stage that an interrupted training resumes from; gone once it is published."""


def read_artifact(folder: Path, stage: str) -> Manifest:
    """The manifest of a finished artifact, whose files are there with the sizes it gives.

    Raises `ArtifactError`, which begins with `stage`, for anything else.
    """
    if not (folder / NAME).exists():
        raise ArtifactError(f"{stage}: {folder}: has no {NAME}, so it is not complete; delete it to make it again")
    try:
        manifest = Manifest.read(folder)
        found = files_below(folder, (NAME, claim.NAME, CHECKPOINTS))
    except ArtifactError as error:
        raise ArtifactError(f"{stage}: {error}") from error
    for name, facts in manifest.files.items():
        size = found[name].st_size if name in found else None
        if size != facts["size"]:
            state = "is missing" if size is None else f"has {size:,} bytes"
            raise ArtifactError(
                f"{stage}: {folder / name}: {state}, expected {facts['size']:,} bytes; delete {folder} to make it again"
            )
    for name in found:
        if name not in manifest.files and not any(part.startswith(".") for part in name.split("/")):
            raise ArtifactError(
                f"{stage}: {folder / name}: is not in {NAME}, so the stage did not leave it; move it away"
            )
    return manifest
