"""Where artifacts live: found by id, built aside, published in one step. The stage's name in a folder is a label."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from solar.artifacts import claim
from solar.artifacts.known import Known
from solar.artifacts.listing import discard, files_below, is_real_folder, refuse_unreal_folder
from solar.artifacts.locks import locked
from solar.artifacts.manifest import NAME, Manifest, describe_files
from solar.artifacts.reading import CHECKPOINTS as CHECKPOINTS
from solar.artifacts.reading import read_artifact
from solar.errors import ArtifactError
from solar.weights.digest import flush

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
    known: Known = field(default_factory=Known)

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
        """The finished artifact, or None. Contents are not read: `verify` does that.

        Raises:
            ArtifactError: the manifest is missing, unreadable or another's, or the files are not those it lists.
        """
        folder = self.folder(stage, identity)
        refuse_unreal_folder(folder)
        if not folder.exists():
            return None
        manifest = read_artifact(folder, stage)
        if manifest.id != identity:
            raise ArtifactError(
                f"{stage}: {folder / NAME}: is that of {manifest.stage}-{manifest.id}, expected the id {identity}; "
                f"delete {folder} to make it again"
            )
        return Artifact(folder, manifest)

    def verify(self, artifact: Artifact, stage: str) -> None:
        """Read the artifact's files, unless that was done since they were last written.

        Raises:
            ArtifactError: a file's content is not what the manifest says.
        """
        try:
            self.known.verify(artifact.path, artifact.manifest)
        except ArtifactError as error:
            raise ArtifactError(f"{stage}: {error}") from error

    def begin(self, stage: str, identity: str) -> Path:
        """Claim the folder to build in: as an interrupted attempt left it if it holds checkpoints, else empty.

        Raises:
            ArtifactInUse: another process is building this id.
            ArtifactError: a link, or a folder that solar did not make, has the folder's name.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root):  # two runs that label one id differently must choose the same folder
            partial = self.partial(stage, identity)
            refuse_unreal_folder(partial)
            _refuse_others_files(partial)
            claim.claim(partial)
        flush(self.root)  # else a power cut may take the folder with all its checkpoints
        if resumable(partial):
            try:
                files_below(partial, (CHECKPOINTS, claim.NAME))  # refuses links that training would write through
            except ArtifactError:
                claim.release(partial)
                raise
        else:
            for path in partial.iterdir():
                if path.name != claim.NAME:
                    discard(path)
        return partial

    def publish(self, manifest: Manifest) -> Artifact:
        """Turn the built folder into the artifact: describe its files, write the manifest, take the name."""
        partial = self.partial(manifest.stage, manifest.id)
        folder = partial.with_name(f"{manifest.stage}-{manifest.id}")
        with locked(self.root):
            for left in (*partial.glob(f".{claim.NAME}.*"), *partial.glob(f".{NAME}.*")):  # by killed processes
                discard(left)
        # Claim and checkpoints stay until the artifact has its name: a stop on the way loses nothing.
        files, read = describe_files(partial, leave_out=(claim.NAME, CHECKPOINTS))
        manifest.files.update(files)
        read_until = time.time_ns()
        manifest.write(partial)
        try:
            with locked(self.root):  # not while another process looks into the folder, to claim it
                partial.rename(folder)
        except OSError:
            # A process that did not see our claim was faster; its artifact has the same identity.
            finished = self.find(manifest.stage, manifest.id)
            if finished is None:
                raise
            remove(partial)
            return finished
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        claim.release(folder)
        flush(self.root)
        self.known.note(folder, read, read_until)
        self.known.save()
        return Artifact(folder, manifest)

    def abandon(self, stage: str, identity: str) -> None:
        """Remove a failed attempt, unless the next one can resume from its checkpoints."""
        partial = self.partial(stage, identity)
        if resumable(partial):
            claim.release(partial)
        else:
            remove(partial)


def resumable(partial: Path) -> bool:
    """Whether an unfinished attempt holds checkpoints."""
    return is_real_folder(partial / CHECKPOINTS) and any((partial / CHECKPOINTS).iterdir())


def _refuse_others_files(partial: Path) -> None:
    """`begin` empties only what solar made: all attempts have an owner file, but those that ended with checkpoints."""
    if not partial.exists() or resumable(partial) or (partial / claim.NAME).exists():
        return
    if any(not path.name.startswith(f".{claim.NAME}.") for path in partial.iterdir()):
        raise ArtifactError(f"{partial}: holds files but no {claim.NAME}, so solar did not make it; move it away")


def remove(partial: Path) -> None:
    """Everything but the claim goes first, so that no other run begins in a folder that is being removed."""
    if not is_real_folder(partial):
        return
    for path in partial.iterdir():
        if is_real_folder(path):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != claim.NAME:
            path.unlink(missing_ok=True)
    claim.release(partial)
    shutil.rmtree(partial, ignore_errors=True)
