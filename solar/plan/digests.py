"""The content of a file or folder as a hash; files that did not change are not read again."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from solar.artifacts.atomic import write_atomically
from solar.config.source_files import COMPRESSED, ROWS, TEXTS, compression, kind, source_files
from solar.errors import ConfigError
from solar.weights.digest import file_sha256, read_plain


@dataclass
class Digests:
    """Hashes of local files, remembered by size, inode and time of change."""

    memory: Path
    """A JSON file with a hash of itself, as a wrong digest would change identities; deleting it costs only time."""
    known: dict[str, list[object]] = field(default_factory=dict)
    changed: bool = False

    @classmethod
    def load(cls, memory: Path) -> "Digests":
        """Read the remembered hashes; none where the file cannot be read, or is not what was written."""
        try:
            content = json.loads(read_plain(memory))
            known = content["files"] if content["sha256"] == _hash(content["files"]) else {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            known = {}
        return cls(memory, known)

    def save(self) -> None:
        """Write the hashes, if any changed."""
        if self.changed and self.memory.parent.is_dir():
            write_atomically(self.memory, json.dumps({"sha256": _hash(self.known), "files": self.known}))

    def of(self, path: Path, key: str) -> str:
        """Hash of a file's content, or of the names and contents of a folder's files that are not hidden.

        Raises:
            ConfigError: nothing is there; the message starts with `key`.
        """
        if path.is_file():
            return self._file(path)
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file, path)]
        if not files:
            raise ConfigError(f"{key}: found nothing at {path}, expected a file or a folder with files")
        return _hash([[file.relative_to(path).as_posix(), self._file(file)] for file in files])

    def of_source(self, path: Path, key: str) -> str:
        """Hash of the kinds and contents of a source's files, in the order they are read.

        Raises:
            ConfigError: nothing is there, or nothing that can be read; the message starts with `key`.
        """
        files = source_files(path)
        if not files or kind(files[0]) not in ROWS + TEXTS:
            what = f"a file of kind {''.join(files[0].suffixes) or '(none)'}" if files else "nothing to read"
            raise ConfigError(
                f"{key}: found {what} at {path}, expected a file, or a folder or glob with files, of "
                f"{', '.join(ROWS + TEXTS)} (also {', '.join(COMPRESSED)})"
            )
        return _hash([[kind(file), compression(file), self._file(file)] for file in files])

    def _file(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        name = str(path.resolve())
        remembered = self.known.get(name)
        if remembered is None or remembered[:4] != stamp:
            self.known[name] = [*stamp, file_sha256(path)]
            self.changed = True
        return str(self.known[name][4])


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether a name on the way to it begins with a dot: `.git/HEAD`, `.cache/huggingface/...`."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
