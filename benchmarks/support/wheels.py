"""Packages that a machine with a GPU and no network may lack: they travel as wheels, which `make wheels` fetches."""

import importlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIST = Path(__file__).resolve().parents[1] / "wheels.txt"


def listed() -> list[str]:
    """`name==version` of each package."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def missing() -> list[str]:
    """Those that are not installed here, in any version."""
    absent = []
    for line in listed():
        try:
            version(line.partition("==")[0])
        except PackageNotFoundError:
            absent.append(line)
    return absent


def install_missing(folder: Path) -> None:
    """Install from the folder alone, and without dependencies: no torch is replaced."""
    if absent := missing():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*command, "--find-links", str(folder), *absent], check=True)
        importlib.invalidate_caches()
        print(f"installed {', '.join(absent)}", flush=True)
