"""What is in a file or folder, as a hash; files that did not change are not read again."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from solar.artifacts.manifest import write_atomically
from solar.errors import ConfigError


@dataclass
class Digests:
    """Hashes of local files, remembered by size, inode and time of change."""

    memory: Path
    """A JSON file; deleting it costs time, never truth."""
    known: dict[str, list[object]] = field(default_factory=dict)
    changed: bool = False

    @classmethod
    def load(cls, memory: Path) -> "Digests":
        """Start from what is remembered, if anything readable is."""
        try:
            known = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        return cls(memory, known if isinstance(known, dict) else {})

    def save(self) -> None:
        """Remember what was read."""
        if self.changed and self.memory.parent.is_dir():
            write_atomically(self.memory, json.dumps(self.known))

    def of(self, path: Path, key: str) -> str:
        """Hash of the contents and relative names of a file, a folder, or the files a glob matches.

        Raises:
            ConfigError: nothing is there; the message starts with `key`.
        """
        files = sorted(_files(path))
        if not files:
            raise ConfigError(
                f"{key}: found nothing at {path}, expected a file, a folder with files or a glob that matches"
            )
        if files == [path]:
            return self._file(path)
        top = path if path.is_dir() else Path()
        named = [[file.relative_to(top).as_posix() if path.is_dir() else file.name, self._file(file)] for file in files]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    def _file(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        name = str(path.resolve())
        remembered = self.known.get(name)
        if remembered is None or remembered[:4] != stamp:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.known[name] = [*stamp, digest]
            self.changed = True
        return str(self.known[name][4])


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return [file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file()]
