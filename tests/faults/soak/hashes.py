"""What a store holds, by hash: a calm run's, and the same after faults."""

import hashlib
import json
import re
from pathlib import Path

Store = dict[str, dict[str, str]]
"""Folder of an artifact -> relative path -> sha256."""
LEFT = ("manifest.json", "owner.json", "checkpoints")
"""The manifest holds times; the other two lie there after a kill right after publication, until the next run."""
MESSAGES = "ranks.log"
"""What libraries say on the ranks, with times and ports."""


def hashes(root: Path) -> Store:
    """Every finished artifact of the store at `root`, with times taken out of the logs."""
    folders = [path for path in (root / "artifacts").glob("*-*") if re.fullmatch(r".+-[0-9a-f]{12}", path.name)]
    return {folder.name: of_folder(folder) for folder in sorted(folders)}


def of_folder(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MESSAGES)
    named = {path.relative_to(folder).as_posix(): path for path in files}
    kept = {name: path for name, path in named.items() if name.split("/")[0] not in LEFT}
    return {name: hashlib.sha256(_content(path)).hexdigest() for name, path in kept.items()}


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name != "metrics.jsonl":
        return content
    lines = [json.loads(line) for line in content.splitlines()]
    return json.dumps([{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]).encode()


def differences(found: Store, calm: Store) -> list[str]:
    """A line for each file of the artifacts found that the calm run did not leave, or left with another content."""
    lines = []
    for folder, files in found.items():
        expected = calm.get(folder)
        if expected is None:
            lines.append(f"{folder}: the calm run did not make it")
            continue
        for name in sorted({*files, *expected}):
            if files.get(name) != expected.get(name):
                state = "is missing" if name not in files else "is new" if name not in expected else "differs"
                lines.append(f"{folder}/{name}: {state}")
    return lines
