"""Where artifacts live: found by id, built aside, published in one step. The stage's name in a folder is a label."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from solar.artifacts import claim
from solar.artifacts.manifest import NAME, Manifest, describe_files, flush
from solar.errors import ArtifactError

CHECKPOINTS = "checkpoints"
"""Folder in an unfinished stage that an interrupted training resumes from; gone once it is published."""
PARTIAL = ".partial"


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
        """The finished artifact of this id, under whatever stage's name; else the folder that `stage` will publish.

        Of several folders of one id, the one with the stage's own name comes first.
        """
        own = self.root / f"{stage}-{identity}"
        return next((path for path in [own, *self._labelled(identity)] if path.exists()), own)

    def partial(self, stage: str, identity: str) -> Path:
        """The folder in which this id is being built, under whatever stage's name; else the one `stage` will build in.

        The name is fixed, so that the next run resumes from what a killed run left.
        """
        own = self.root / f"{stage}-{identity}{PARTIAL}"
        return next((path for path in [own, *self._labelled(identity + PARTIAL)] if path.exists()), own)

    def _labelled(self, ending: str) -> list[Path]:
        return sorted(self.root.glob(f"*-{ending}"))

    def find(self, stage: str, identity: str) -> Artifact | None:
        """The finished artifact, or None.

        Raises:
            ArtifactError: the manifest is missing, or a file is missing or has another size than the manifest says.
        """
        folder = self.folder(stage, identity)
        if not folder.exists():
            return None
        if not (folder / NAME).exists():
            raise ArtifactError(f"{folder}: has no {NAME}, so it is not complete; delete it to make it again")
        manifest = Manifest.read(folder)
        for name, facts in manifest.files.items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else None
            if size != facts["size"]:
                state = "is missing" if size is None else f"has {size:,} bytes"
                raise ArtifactError(
                    f"{path}: {state}, expected {facts['size']:,} bytes; delete {folder} to make it again"
                )
        return Artifact(folder, manifest)

    def begin(self, stage: str, identity: str) -> Path:
        """Claim the folder to build in: as an interrupted attempt left it if it holds checkpoints, else empty.

        Raises:
            ArtifactInUse: another process is building this id.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with claim.locked(self.root):  # two runs that label one id differently must choose the same folder
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
        partial = self.partial(manifest.stage, manifest.id)
        folder = partial.with_name(f"{manifest.stage}-{manifest.id}")
        # Claim and checkpoints stay until the artifact has its name: a stop on the way loses nothing.
        manifest.files.update(describe_files(partial, leave_out=(claim.NAME, CHECKPOINTS)))
        manifest.write(partial)
        try:
            with claim.locked(self.root):  # not while another process looks into the folder, to claim it
                partial.rename(folder)
        except OSError:
            # A process that did not see our claim was faster; its artifact has the same identity.
            finished = self.find(manifest.stage, manifest.id)
            if finished is None:
                raise
            _remove(partial)
            return finished
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        claim.release(folder)
        flush(self.root)
        return Artifact(folder, manifest)

    def abandon(self, stage: str, identity: str) -> None:
        """Remove a failed attempt, unless the next one can resume from its checkpoints."""
        partial = self.partial(stage, identity)
        if _resumable(partial):
            claim.release(partial)
        else:
            _remove(partial)


def _resumable(partial: Path) -> bool:
    return any((partial / CHECKPOINTS).glob("*"))


def _remove(partial: Path) -> None:
    """Everything but the claim goes first, so that no other run begins in a folder that is being removed."""
    for path in partial.iterdir() if partial.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != claim.NAME:
            path.unlink(missing_ok=True)
    claim.release(partial)
    shutil.rmtree(partial, ignore_errors=True)
