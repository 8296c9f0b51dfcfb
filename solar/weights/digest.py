"""The hash by which a file is known: in ids, manifests, checkpoints and tables of reference log-probabilities."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Hex digits of the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
