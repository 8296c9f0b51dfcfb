"""Faults of a store in which no process works: damage, litter, and times that cannot be."""

import json
import os
import random
import re
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Harm:
    """What was done to a store."""

    what: str
    refused: Path | None = None
    """The folder that the next run must name and refuse; None: the next run must go on."""
    may_refuse: bool = False
    """The damage may leave the meaning as it was, such as another number of spaces in JSON."""


Inflict = Callable[[Path, random.Random], Harm | None]
"""Does harm to the store at `paths.root`; None where it finds nothing to harm."""


def _artifacts(root: Path) -> list[Path]:
    return sorted(p for p in (root / "artifacts").glob("*-*") if re.fullmatch(r".+-[0-9a-f]{12}", p.name))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "owner.json")


def _artifact_file(root: Path, draw: random.Random) -> tuple[Path, Path] | None:
    """A finished artifact, and one of its files."""
    choices = [
        (folder, path) for folder in _artifacts(root) for path in _files(folder) if "checkpoints" not in path.parts
    ]
    return draw.choice(choices) if choices else None


def _checkpoint_file(root: Path, draw: random.Random) -> Path | None:
    choices = [p for folder in (root / "artifacts").glob("*.partial/checkpoints/step-*") for p in _files(folder)]
    return draw.choice(sorted(choices)) if choices else None


def _flip(path: Path, draw: random.Random) -> str:
    content = bytearray(path.read_bytes())
    if not content:
        return _cut(path, draw)
    at, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
    content[at] ^= bit
    path.write_bytes(content)
    return f"flipped bit {bit} of byte {at} of {path.parent.name}/{path.name}"


def _cut(path: Path, draw: random.Random) -> str:
    size = path.stat().st_size
    length = draw.randrange(size) if size else 1
    with path.open("r+b") as file:
        file.truncate(length)
    return f"made {path.parent.name}/{path.name} {length} bytes long, not {size}"


def _delete(path: Path, draw: random.Random) -> str:
    path.unlink()
    return f"deleted {path.parent.name}/{path.name}"


def _to_artifact(harm: Callable[[Path, random.Random], str]) -> Inflict:
    def inflict(root: Path, draw: random.Random) -> Harm | None:
        if (chosen := _artifact_file(root, draw)) is None:
            return None
        folder, path = chosen
        return Harm(f"{folder.name}: {harm(path, draw)}", folder, may_refuse=path.name == "manifest.json")

    return inflict


def _to_checkpoint(harm: Callable[[Path, random.Random], str]) -> Inflict:
    def inflict(root: Path, draw: random.Random) -> Harm | None:
        path = _checkpoint_file(root, draw)
        return None if path is None else Harm(f"{path.parents[2].name}: {harm(path, draw)}")

    return inflict


def forgotten(root: Path, draw: random.Random) -> Harm | None:
    """Somebody deletes an artifact, and all that were made after it; the three newest at least."""
    folders = sorted(_artifacts(root), key=lambda folder: folder.stat().st_mtime_ns)
    if not folders:
        return None
    at = draw.randrange(max(1, len(folders) - 2))
    for folder in folders[at:]:
        shutil.rmtree(folder)
    return Harm(f"deleted {folders[at].name} and {len(folders) - at - 1} newer artifacts")


def wrong_times(root: Path, draw: random.Random) -> Harm | None:
    """The clock was wrong while files were written: a year in the past, or in the future."""
    seconds = time.time() + draw.choice([-1, 1]) * 365 * 86400
    for path in [*root.rglob("*")]:
        os.utime(path, (seconds, seconds), follow_symlinks=False)
    return Harm(f"all files are of {time.strftime('%Y-%m-%d', time.gmtime(seconds))}")


def litter(root: Path, draw: random.Random) -> Harm | None:
    """What dead processes leave: attempts, halves of files, an owner file in a finished artifact."""
    dead = json.dumps({"host": socket.gethostname(), "boot": "before", "pid": 1, "started": "1"})
    for stage in draw.sample(["docs", "base", "dpo_a", "never"], 2):
        partial = root / "artifacts" / f"{stage}-{draw.randrange(16**12):012x}.partial"
        (partial / "model").mkdir(parents=True)
        (partial / "owner.json").write_text(dead, encoding="utf-8")
        (partial / "model" / "model.safetensors").write_bytes(b"half")
    (root / f".verified.json.{draw.randrange(1000)}-aa").write_text("{", encoding="utf-8")
    for folder in draw.sample(_artifacts(root), min(1, len(_artifacts(root)))):
        (folder / "owner.json").write_text(dead, encoding="utf-8")
    return Harm("planted two dead attempts, half a verified.json and an owner file")


def wrong_memory(root: Path, draw: random.Random) -> Harm | None:
    """The files that only save time are damaged."""
    files = [path for path in (root / "verified.json", root / "digests.json") if path.exists()]
    return Harm(", ".join(draw.choice([_flip, _cut, _delete])(path, draw) for path in files)) if files else None


AT_REST: dict[str, Inflict] = {
    "artifact byte flipped": _to_artifact(_flip),
    "artifact file cut": _to_artifact(_cut),
    "artifact file deleted": _to_artifact(_delete),
    "artifacts deleted": forgotten,
    "checkpoint byte flipped": _to_checkpoint(_flip),
    "checkpoint file cut": _to_checkpoint(_cut),
    "checkpoint file deleted": _to_checkpoint(_delete),
    "times a year off": wrong_times,
    "litter planted": litter,
    "remembered hashes damaged": wrong_memory,
}
