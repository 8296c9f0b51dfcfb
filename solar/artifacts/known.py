"""Hashes of an artifact's files, remembered while the files stay untouched, so that they are read once."""

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from solar.artifacts.atomic import write_atomically
from solar.artifacts.manifest import HASHING_THREADS, Manifest
from solar.errors import ArtifactError
from solar.weights.digest import Stamp, plain_sha256, read_plain, stamp

FILE = "verified.json"
"""Under `paths.root`; deleting it costs only time."""
_FINE_NS, _COARSE_NS = 50_000_000, 2_000_000_000
"""Longest tick of a file system's clock; of one that counts whole seconds."""


@dataclass
class Known:
    """Hashes by file."""

    memory: Path | None = None
    """A JSON file for later processes."""
    contents: bool = True
    """False: files are taken for what they are by their size alone."""
    seen: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    """Path -> stamp and hash."""
    lasting: set[str] = field(default_factory=set)
    """Paths whose next change will show in the stamp: the clock has ticked between the last write and the reading."""
    changed: bool = False

    @classmethod
    def load(cls, root: Path, contents: bool = True, remember: bool = True) -> "Known":
        """What earlier processes have read of the store at `root` (`paths.root`); nothing where that is unreadable.

        Without `remember`, this process reads every file itself.
        """
        known = cls(root / FILE, contents)
        if contents and remember:
            for name, (seen, sha256) in _remembered(root / FILE).items():
                known.seen[str(root.absolute() / name)] = seen, sha256
                known.lasting.add(str(root.absolute() / name))
        return known

    def note(self, folder: Path, read: Mapping[str, tuple[Stamp, str]], at_ns: int) -> None:
        """Remember files of a folder that were read until `at_ns`."""
        for name, (seen, sha256) in read.items():
            path = str(folder.absolute() / name)
            last_write = max(seen[3:])
            tick = _COARSE_NS if last_write % 10**9 == 0 else _FINE_NS
            self.seen[path] = seen, sha256
            self.lasting.discard(path)
            if last_write + tick < at_ns:
                self.lasting.add(path)
        self.changed = self.changed or bool(read)

    def unread(self, folder: Path, manifest: Manifest) -> dict[str, int]:
        """Files of an artifact that have to be read to be verified, and their sizes.

        A file whose remembered hash is another than the manifest's is read, too: the memory may be damaged.
        """
        if not self.contents:
            return {}
        place, unread = folder.absolute(), {}
        for name, facts in manifest.files.items():
            seen = self.seen.get(str(place / name))
            if seen is None or seen != (_stamp_now(place / name), facts["sha256"]):
                unread[name] = facts["size"]
        return unread

    def verify(self, folder: Path, manifest: Manifest) -> None:
        """Raises `ArtifactError` for a file whose content is not what the manifest says."""
        if not self.contents:
            return
        place = folder.absolute()
        try:
            unread = self.unread(folder, manifest)
            with ThreadPoolExecutor(HASHING_THREADS) as threads:
                read = dict(zip(unread, threads.map(lambda name: plain_sha256(folder / name), unread), strict=True))
        except OSError as error:
            raise ArtifactError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
        self.note(folder, read, time.time_ns())
        for name, facts in manifest.files.items():
            found = self.seen[str(place / name)][1]
            if found != facts["sha256"]:
                raise ArtifactError(
                    f"{folder / name}: its content was changed since the stage wrote it (sha256 {found[:12]}..., "
                    f"expected {str(facts['sha256'])[:12]}...); delete {folder} to make it again"
                )

    def save(self) -> None:
        """Write what is known for later processes, if it has changed; what other processes wrote meanwhile stays."""
        if not self.changed or self.memory is None or not self.contents:
            return
        root = self.memory.parent.absolute()
        entries = _remembered(self.memory)
        for path, seen in self.seen.items():
            if Path(path).is_relative_to(root):
                name = Path(path).relative_to(root).as_posix()
                entries.pop(name, None)
                entries |= {name: seen} if path in self.lasting else {}
        entries = {name: seen for name, seen in entries.items() if os.path.lexists(root / name)}
        lines = {name: [*seen, sha256] for name, (seen, sha256) in entries.items()}
        with suppress(OSError):  # a full disk, or the store of somebody else: the next process reads the files again
            write_atomically(self.memory, json.dumps(lines))
        self.changed = False


def _stamp_now(path: Path) -> Stamp | None:
    try:
        return stamp(path.lstat())
    except OSError:
        return None


def _remembered(memory: Path) -> dict[str, tuple[Stamp, str]]:
    try:
        entries = json.loads(read_plain(memory))
        known = {}
        for name, (device, inode, size, mtime, ctime, sha256) in entries.items():
            known[str(name)] = (int(device), int(inode), int(size), int(mtime), int(ctime)), str(sha256)
        return known
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
