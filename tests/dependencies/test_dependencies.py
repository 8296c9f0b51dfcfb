"""What solar installs: locked by hash, above every known hole, and never the package `lightning`."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADVISORIES = tomllib.loads(Path(__file__).with_name("advisories.toml").read_text())
LOCKS = ("constraints.txt", "constraints-cuda.txt", "constraints-extras.txt")
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
DIRECT = [*map(Requirement, PROJECT["dependencies"]), *(req for req in EXTRAS if req.name != "solar")]


def locked(name: str) -> list[tuple[str, Version, list[str]]]:
    """Name, version and hashes of each entry of a lock."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    entries = re.split(r"\n(?=\S)", "\n".join(lines).strip())
    heads = [re.match(r"([A-Za-z0-9_.-]+)==([^ ;]+)", entry) for entry in entries]
    assert all(heads), f"{name}: an entry without an exact version"
    return [
        (canonicalize_name(head[1]), Version(head[2]), re.findall(r"--hash=sha256:[0-9a-f]{64}", entry))
        for head, entry in zip(heads, entries, strict=True)
    ]


ALL_LOCKED = [entry for name in LOCKS for entry in locked(name)]


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_a_hash(name: str) -> None:
    packages = locked(name)
    assert len(packages) > 10
    assert [package for package, _, hashes in packages if not hashes] == []


def test_the_package_lightning_is_nowhere() -> None:
    """T-E1: two releases of `lightning` carried malware; the same code comes as `pytorch-lightning`."""
    assert "lightning" not in {canonicalize_name(req.name) for req in DIRECT}
    assert "lightning" not in {package for package, _, _ in ALL_LOCKED}
    assert "pytorch-lightning" in {package for package, _, _ in ALL_LOCKED}


@pytest.mark.parametrize("package", ADVISORIES)
def test_floor_and_lock_lie_above_the_known_hole(package: str) -> None:
    """T-E1."""
    fixed = Version(ADVISORIES[package]["fixed"])
    versions = [version for name, version, _ in ALL_LOCKED if name == package]
    assert versions, f"{package} is in no lock"
    assert min(versions) >= fixed
    (requirement,) = [req for req in DIRECT if canonicalize_name(req.name) == package]
    floors = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    assert floors, f"{package} has no floor in pyproject.toml"
    assert floors[0] >= fixed


def test_the_locks_hold_every_direct_dependency_in_a_version_of_its_range() -> None:
    versions = {name: version for name, version, _ in ALL_LOCKED}
    for requirement in DIRECT:
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name}: run make lock"
        assert requirement.specifier.contains(version), f"{requirement}: locked to {version}; run make lock"


def test_every_extra_that_an_extra_or_a_message_names_exists() -> None:
    """An extra that names one that does not exist cannot be installed at all."""
    extras = PROJECT["optional-dependencies"]
    named = {extra for req in EXTRAS if req.name == "solar" for extra in req.extras}
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "solar").rglob("*.py")]
    named |= {extra for text in texts for extra in re.findall(r"solar\[([a-z_0-9]+)\]", text)}
    assert len(named) > 5
    assert named - set(extras) == set()


def test_the_makefile_installs_nothing_without_a_hash_but_solar_itself() -> None:
    """The rivals of the benchmarks live in an environment of their own."""
    makefile = (ROOT / "Makefile").read_text()
    recipes = [line for line in makefile.splitlines() if line.startswith("\t") and "RIVALS" not in line]
    installs = [line for line in recipes if "$(PIP)" in line or "pip install" in line]
    assert installs == ["\t@$(PIP) --editable ."]
    assert "HASHED := $(PIP) --require-hashes --requirement" in makefile
    assert "--no-deps" in makefile.split("PIP    := ")[1].splitlines()[0]


FAKE_AUDIT = """
import json, sys
lock = sys.argv[sys.argv.index("--requirement") + 1]
print(json.dumps({"dependencies": [{"name": "torch", "version": "2.5.0", "vulns": VULNS}]}))
"""


@pytest.mark.parametrize(
    ("vulns", "code", "line"),
    [
        ([], 0, "advisories: 2 packages looked up"),
        ([{"id": "PYSEC-1", "fix_versions": ["2.6.0"]}], 1, "torch 2.5.0: PYSEC-1, fixed in 2.6.0"),
    ],
)
def test_an_advisory_fails_the_audit(tmp_path: Path, vulns: list, code: int, line: str) -> None:
    """T-E1."""
    package = tmp_path / "pip_audit"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_AUDIT.replace("VULNS", repr(vulns)))
    ran = subprocess.run(
        [sys.executable, ".ci/audit"], cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ran.returncode == code, ran.stderr
    assert line in ran.stdout


def test_an_audit_without_a_network_says_so_and_passes(tmp_path: Path) -> None:
    package = tmp_path / "pip_audit"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text('import sys; sys.exit("no route to the service")')
    ran = subprocess.run(
        [sys.executable, ".ci/audit"], cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "no route to the service" in ran.stdout
    assert "the service cannot be reached" in ran.stdout
