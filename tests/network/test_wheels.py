"""What travels as wheels to a machine with a GPU and no network."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from support import wheels  # noqa: E402

LOCKS = "".join((ROOT / f"constraints{part}.txt").read_text() for part in ("", "-extras"))
RIVALS = {"trl"}


def test_the_wheels_are_of_the_locked_versions_and_bring_no_torch() -> None:
    locked = dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", LOCKS))
    listed = dict(line.split("==") for line in wheels.listed())
    assert len(listed) > 20 and not re.search(r"\btorch==|nvidia|triton|cuda", "\n".join(wheels.listed()))
    assert {name: locked.get(name, version if name in RIVALS else None) for name, version in listed.items()} == listed


def test_only_what_is_missing_is_installed_and_from_the_folder_alone(monkeypatch, tmp_path) -> None:
    (tmp_path / "list.txt").write_text("numpy==2.4.6\nno-such-package==1.0  # why\n")
    monkeypatch.setattr(wheels, "LIST", tmp_path / "list.txt")
    ran = []
    monkeypatch.setattr(wheels.subprocess, "run", lambda command, check: ran.append(command))
    wheels.install_missing(tmp_path)
    (command,) = ran
    options = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--find-links", str(tmp_path)]
    assert command[2:] == [*options, "no-such-package==1.0"]
