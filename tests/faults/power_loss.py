"""What a power cut leaves: contents and names of files as they were when they were last synced."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from tests.faults.crashes import killed_at

_open = os.open
"""Before calls are counted."""


class Lost(StrEnum):
    """What has not reached the disk. File systems may do either."""

    everything = "everything"
    """No name and no content that was not synced."""
    contents = "contents"
    """Names are there, also new ones; half of a content that was not synced is missing."""


class Disk:
    """The durable part of the folder `root`, by inode."""

    def __init__(self, root: Path) -> None:
        """All that is there now is durable."""
        self.root = root
        self.names: dict[int, dict[str, tuple[int, bool]]] = {}
        """Inode of a folder -> name of an entry -> its inode, and whether it is a folder."""
        self.contents: dict[int, bytes] = {}
        self._kept: list[int] = []
        for path in [root, *root.rglob("*")]:
            self._note(_open(path, os.O_RDONLY))

    def _note(self, descriptor: int) -> None:
        """The file or folder is durable as it is. The descriptor stays open, so that no other file gets the inode."""
        self._kept.append(descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(descriptor) as entries:
                self.names[status.st_ino] = {
                    entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries
                }
        else:
            self.contents[status.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, what is synced becomes durable."""
        functions = os.fsync, os.fdatasync

        def synced(function: Callable[[int], None]) -> Callable[[int], None]:
            def wrapper(descriptor: int) -> None:
                function(descriptor)
                self._note(_open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))

            return wrapper

        os.fsync, os.fdatasync = map(synced, functions)
        try:
            yield
        finally:
            os.fsync, os.fdatasync = functions

    def restore(self, target: Path, lost: Lost) -> None:
        """Write what is left after the cut to the new folder `target`."""
        if lost is Lost.everything:
            self._durable(self.root.stat().st_ino, target)
        else:
            self._torn(self.root, target)

    def _durable(self, inode: int, target: Path) -> None:
        target.mkdir()
        for name, (child, is_folder) in self.names.get(inode, {}).items():
            if is_folder:
                self._durable(child, target / name)
            else:
                (target / name).write_bytes(self.contents.get(child, b""))

    def _torn(self, folder: Path, target: Path) -> None:
        target.mkdir()
        for path in folder.iterdir():
            if path.is_dir():
                self._torn(path, target / path.name)
                continue
            content = path.read_bytes()
            durable = self.contents.get(path.stat().st_ino)
            (target / path.name).write_bytes(content if durable == content else content[: len(content) // 2])


def cut_at(call: int, work: Callable[[], object], root: Path, after: Path, lost: Lost) -> bool:
    """Do the work below `root` until the power fails at this call; `after` becomes what the disk then holds.

    Whether the work made so many calls: if not, the power fails at its end.
    """
    disk = Disk(root)

    def listening_work() -> None:
        with disk.listening():
            work()

    return killed_at(call, listening_work, last=lambda: disk.restore(after, lost))
