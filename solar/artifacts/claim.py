"""Who is building a folder: one process at a time; the claim of a dead process is removed."""

import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from solar.artifacts import process
from solar.artifacts.locks import lock, locked, try_lock
from solar.errors import ArtifactError, ArtifactInUse
from solar.weights.digest import open_plain, read_plain

NAME = "owner.json"
_claims: dict[tuple[int, int], int] = {}
"""Device and inode of each owner file of this process -> the open descriptor that holds its lock."""


def claim(folder: Path) -> None:
    """Take a folder for this process.

    The owner file appears complete or not at all, even where file locks do nothing (some network file systems). The
    claim of a process that has ended is replaced.

    Raises:
        ArtifactInUse: another process is building the folder.
        ArtifactError: other processes took the folder three times in a row.
    """
    path = folder / NAME
    for _ in range(3):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if _take(path):
                return
        except FileNotFoundError:  # another process has just removed the folder, or our file in it
            continue
        _evict_dead_owner(path)
    raise ArtifactError(f"{path}: another process took the folder first; wait for it, or run again")


def _take(path: Path) -> bool:
    """Write the owner file, and keep it locked; False where there is one."""
    mine = path.with_name(f".{NAME}.{os.getpid()}-{secrets.token_hex(4)}")
    # A new file, and never one that somebody has put there: no link is followed.
    descriptor = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    claimed = False
    try:
        os.write(descriptor, json.dumps(process.describe() | {"locked": lock(descriptor, mine)}).encode())
        path.hardlink_to(mine)
        claimed = True
        _claims[_inode(path)] = descriptor
    except FileExistsError:
        pass
    finally:
        mine.unlink(missing_ok=True)
        if not claimed:
            os.close(descriptor)
    return claimed


def release(folder: Path) -> None:
    """Give a claimed folder back."""
    path = folder / NAME
    with suppress(FileNotFoundError):
        descriptor = _claims.pop(_inode(path), None)
        path.unlink()
        if descriptor is not None:
            os.close(descriptor)


def refuse_live_owner(folder: Path) -> bytes | None:
    """The owner file of a process that has ended; None if there is none.

    Raises:
        ArtifactInUse: a process builds the folder, or may do so where nothing can tell.
        ArtifactError: the owner file is no file that can be read.
    """
    path = folder / NAME
    try:
        content = read_plain(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); remove it if no process uses it") from error
    owner = _parsed(content)
    if owner.get("host") not in (None, socket.gethostname()):
        raise ArtifactInUse(
            f"{folder}: process {owner.get('pid')} on {owner.get('host')} is building it; "
            f"wait for it, or delete {path} if that process has ended"
        )
    if _is_alive(owner, path):
        raise ArtifactInUse(
            f"{folder}: process {owner.get('pid')} is building it; wait for it to end, or stop it "
            f"(if it has ended, delete {path})"
        )
    return content


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _evict_dead_owner(path: Path) -> None:
    # The lock on the folder keeps two newcomers from removing each other's fresh claim in place of the dead one. Where
    # locks do nothing, what was moved aside is compared: a fresh claim goes back.
    with locked(path.parent), suppress(FileNotFoundError):
        dead = refuse_live_owner(path.parent)
        aside = path.with_name(f".{NAME}.{os.getpid()}-{secrets.token_hex(4)}")
        path.rename(aside)
        if read_plain(aside) != dead:
            with suppress(FileExistsError):
                path.hardlink_to(aside)
        aside.unlink()


def _is_alive(owner: dict[str, Any], path: Path) -> bool:
    """Whether the owner, on a machine of our host name, still runs.

    A process number means something only in its own PID namespace: containers that share a host name have one each.
    There the owner file's lock decides, which the system drops when the owner ends.
    """
    recorded = "namespace" in owner
    same_kernel = owner.get("boot") == process.boot_id()
    if same_kernel and owner.get("namespace", process.pid_namespace()) == process.pid_namespace():
        runs = process.runs(owner.get("pid"), owner.get("started"))
        if runs is not None:
            return runs
    elif not recorded:  # a claim without the fields above, from before a restart of the machine
        return False
    if not owner.get("locked"):
        return True  # nothing tells; the message says how to go on
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)  # NFS locks only what can be written
    except PermissionError:
        descriptor = open_plain(path)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
