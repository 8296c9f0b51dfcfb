"""`python -m solar.artifacts gc` lists what crashes left below `outputs`; `delete=true` removes it.
`python -m solar.artifacts verify` reads every file of every artifact, and compares it with the artifact's manifest.

gc never removes an artifact, an unfinished training with checkpoints, or what solar did not make. verify ends with
status 1 if an artifact is damaged.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solar.arguments import run
from solar.artifacts.known import Known
from solar.artifacts.listing import refuse_unreal_folder
from solar.artifacts.reading import read_artifact
from solar.artifacts.store import PARTIAL, Artifact, Store
from solar.artifacts.tidy import litter, remove_litter
from solar.errors import ArtifactError, ConfigError, hint


@dataclass
class ArtifactsOptions:
    """Options of the command line."""

    root: Path = Path("outputs")
    """Where the artifacts are (`paths.root`)."""
    delete: bool = False
    """gc: remove what is listed as litter."""


def _collect(options: ArtifactsOptions) -> None:
    for item in litter(options.root):
        verb = "kept" if not item.removable else "would remove"
        if item.removable and options.delete:
            verb = "removed" if remove_litter(options.root, item) else "in use"
        sys.stdout.write(f"{verb:<13} {item.path}: {item.what}\n")


def _verify(options: ArtifactsOptions) -> None:
    known = Known.load(options.root, remember=False)
    store, damaged = Store(options.root / "artifacts", known), []
    for folder in sorted(store.root.iterdir()) if store.root.is_dir() else ():
        if folder.name.startswith(".") or folder.name.endswith(PARTIAL):
            continue
        try:
            refuse_unreal_folder(folder)
            artifact = Artifact(folder, read_artifact(folder, folder.name))
            store.verify(artifact, folder.name)
        except (ArtifactError, PermissionError) as error:
            damaged.append(str(error))
            continue
        size = sum(facts["size"] for facts in artifact.manifest.files.values())
        sys.stdout.write(f"whole  {folder.name}  {len(artifact.manifest.files)} files, {size:,} bytes\n")
    known.save()
    if damaged:
        raise ArtifactError("\n".join(damaged))


_COMMANDS = {"gc": _collect, "verify": _verify}


def _artifacts(names: list[str], options: ArtifactsOptions) -> None:
    if names[0] not in _COMMANDS:
        raise ConfigError(f"{names[0]}: no such command{hint(names[0], _COMMANDS)}")
    if not options.root.is_dir():
        raise ConfigError(f"root: found no folder {options.root}, expected the folder of the runs (`paths.root`)")
    _COMMANDS[names[0]](options)


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run(words, __doc__ or "", ArtifactsOptions, ("COMMAND",), _artifacts)


if __name__ == "__main__":
    sys.exit(main())
