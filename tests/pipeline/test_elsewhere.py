"""The whole quickstart in another place: other hash seed, folder, language, time zone and umask, and no network."""

import hashlib
import json
import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import command

pytestmark = pytest.mark.slow
NO_NETWORK = """
    import os, socket
    def _refuse(name, function):
        def refusing(*arguments, **keywords):
            if name == "connect" and arguments[0].family == socket.AF_UNIX:
                return function(*arguments, **keywords)
            with open(os.environ["ASKED_FOR"], "a") as file:
                file.write(f"{name} {arguments}\\n")
            raise OSError("there is no network")
        return refusing
    socket.socket.connect = _refuse("connect", socket.socket.connect)
    socket.getaddrinfo = _refuse("getaddrinfo", socket.getaddrinfo)
"""
MEASURED = ("tokens_per_second", "peak_memory_bytes", "estimated_memory_bytes", "seconds", "wall_seconds")
"""What a second run of the same work measures anew."""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "here").mkdir()
    (place / "sitecustomize.py").write_text(textwrap.dedent(NO_NETWORK))
    paths = os.pathsep.join([str(place), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "ASKED_FOR": str(place / "asked"), "PYTHONHASHSEED": "12345"}
    environment |= {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Chatham", "HOME": str(place / "here"), "USER": "other"}
    done = subprocess.run(
        command(place / "root"), cwd=place / "here", env=environment, umask=0, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return place


def _files(root: Path) -> Iterator[tuple[str, str]]:
    """Each file of each artifact with the hash of its content, without what is measured; pages show such numbers."""
    for path in sorted((root / "artifacts").rglob("*")):
        name = path.relative_to(root / "artifacts").as_posix()
        if not path.is_file() or name.startswith("report-"):
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            lines = content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()]
            content = json.dumps([_calm(json.loads(line)) for line in lines]).encode()
        if path.name in ("logps.safetensors", "reference.safetensors"):  # their headers name a hash of a manifest
            content = content[8 + int.from_bytes(content[:8], "little") :]
        yield name, hashlib.sha256(content).hexdigest()


def _calm(value: object) -> object:
    """Without what is measured, and without the hashes of files that hold it."""
    if isinstance(value, dict):
        kept = {key: _calm(child) for key, child in value.items() if key not in MEASURED}
        return {key: child for key, child in kept.items() if not ("files" in kept and key in ("sha256", "files"))}
    return [_calm(child) for child in value] if isinstance(value, list) else value


def test_every_file_has_the_same_bytes(finished: Path, elsewhere: Path) -> None:
    """T-G1."""
    here, there = dict(_files(finished)), dict(_files(elsewhere / "root"))
    assert here.keys() == there.keys() and len(here) > 60
    assert [name for name in here if here[name] != there[name]] == []


def test_nobody_asks_for_the_network(elsewhere: Path) -> None:
    """T-E11."""
    assert not (elsewhere / "asked").exists(), (elsewhere / "asked").read_text()


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(elsewhere: Path, tmp_path: Path) -> None:
    """T-D6."""
    for root, headline in ((elsewhere / "root", "17 done, 0 to run"), (tmp_path / "new", "0 done, 17 to run")):
        before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
        done = subprocess.run(command(root, "dry_run=true"), capture_output=True, text=True)
        assert done.returncode == 0 and headline in done.stdout.splitlines()[0]
        assert {path: path.lstat().st_mtime_ns for path in root.rglob("*") if path.is_file()}.items() <= before.items()
        assert not list((tmp_path / "new").glob("artifacts/*")) and not list((tmp_path / "new").glob("runs/*"))
