"""Where artifacts live: found by name and id, built aside, published in one step."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from solar.artifacts import claim
from solar.artifacts.manifest import NAME, Manifest, describe_files, sync_folder
from solar.errors import ArtifactError

CHECKPOINTS = "checkpoints"
"""Folder in an unfinished stage that an interrupted training resumes from; gone once it is published."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage on disk."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class Store:
    """All artifacts below `root`."""

    root: Path

    def folder(self, stage: str, identity: str) -> Path:
        """Where a stage of this identity is, or will be."""
        return self.root / f"{stage}-{identity}"

    def partial(self, stage: str, identity: str) -> Path:
        """Where it is built; the name is fixed, so that the next run resumes what a killed one left."""
        return self.root / f"{stage}-{identity}.partial"

    def find(self, stage: str, identity: str) -> Artifact | None:
        """The finished artifact, or None.

        Raises:
            ArtifactError: it is there, and a file of it is missing or has another size than the manifest says.
        """
        folder = self.folder(stage, identity)
        if not folder.exists():
            return None
        if not (folder / NAME).exists():
            raise ArtifactError(f"{folder}: has no {NAME}, so it is not complete; delete it to make it again")
        manifest = Manifest.read(folder)
        for name, facts in manifest.files.items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != facts["size"]:
                was = "is missing" if found is None else f"has {found:,} bytes"
                raise ArtifactError(
                    f"{path}: {was}, expected {facts['size']:,} bytes; delete {folder} to make it again"
                )
        return Artifact(folder, manifest)

    def begin(self, stage: str, identity: str) -> Path:
        """Claim the folder to build in: as an interrupted attempt left it if it holds checkpoints, else empty."""
        partial = self.partial(stage, identity)
        claim.claim(partial)
        if not _resumable(partial):
            for path in partial.iterdir():
                if path.name == claim.NAME:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return partial

    def publish(self, manifest: Manifest) -> Artifact:
        """Turn the built folder into the artifact: describe its files, write the manifest, take the name."""
        partial, folder = self.partial(manifest.stage, manifest.id), self.folder(manifest.stage, manifest.id)
        # The claim and the checkpoints stay until the artifact has its name: a stop on the way loses nothing.
        manifest.files.update(describe_files(partial, leave_out=(claim.NAME, CHECKPOINTS)))
        manifest.write(partial)
        try:
            partial.rename(folder)
        except OSError:
            # Somebody who did not see our claim was faster; what they made has the same identity.
            finished = self.find(manifest.stage, manifest.id)
            if finished is None:
                raise
            shutil.rmtree(partial)
            return finished
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        claim.release(folder)
        sync_folder(self.root)
        return Artifact(folder, manifest)

    def abandon(self, stage: str, identity: str) -> None:
        """Leave nothing of a failed attempt, unless the next one can resume from its checkpoints."""
        partial = self.partial(stage, identity)
        if _resumable(partial):
            claim.release(partial)
        else:
            shutil.rmtree(partial, ignore_errors=True)


def _resumable(partial: Path) -> bool:
    return any((partial / CHECKPOINTS).glob("*"))
