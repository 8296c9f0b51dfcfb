"""Writes docs/reliability.md: `python -m tests.reliability.document > docs/reliability.md`."""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
_ID = re.compile(r"\bT-([A-G]\d+)\b")
_HEAD = """\
# Reliability

What solar promises about failures, and the tests that hold each promise. All of them run on two CPU cores without a
network; the long ones with `make test-slow`. `tests/faults/` is the kit that injects the faults. `make docs` writes
this page from the tests, and a test compares the two: a promise without a test cannot stand here. What is promised
against hostile files and people is in [security.md](security.md).
"""


def promises() -> dict[str, tuple[str, bool]]:
    """Id -> the promise, or why none is given; and whether one is given."""
    content = tomllib.loads((Path(__file__).parent / "promises.toml").read_text(encoding="utf-8"))
    found = {}
    for letter, section in content.items():
        for number, text in section.items():
            if number != "title":
                given = isinstance(text, str)
                found[f"{letter}{number}"] = (text if given else text["applies_not"], given)
    return found


def titles() -> dict[str, str]:
    """Letter of a section -> its title."""
    content = tomllib.loads((Path(__file__).parent / "promises.toml").read_text(encoding="utf-8"))
    return {letter: section["title"] for letter, section in content.items()}


def held_by() -> dict[str, list[tuple[Path, str]]]:
    """Id -> file and name of each test whose docstring, or whose module's docstring, carries the id."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_module = _ID.findall(ast.get_docstring(tree) or "")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for identity in dict.fromkeys([*of_module, *_ID.findall(ast.get_docstring(node) or "")]):
                    found[identity].append((path, node.name))
    return found


def page() -> str:
    """The whole page."""
    parts, tests = [_HEAD], held_by()
    for letter, title in titles().items():
        rows = ["| id | promise | held by |", "| --- | --- | --- |"]
        for identity, (text, given) in promises().items():
            if identity.startswith(letter):
                held = "; ".join(_claims(tests[identity])) if given else "not promised"
                rows.append(f"| {identity} | {text} | {held} |")
        parts.append(f"## {letter}. {title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _claims(tests: list[tuple[Path, str]]) -> list[str]:
    """A link to each file, with the claims of its tests in words."""
    by_file: dict[Path, list[str]] = defaultdict(list)
    for path, name in tests:
        by_file[path].append(name.removeprefix("test_").replace("_", " "))
    return [
        f"[{path.stem.removeprefix('test_').replace('_', ' ')}](../{path.relative_to(TESTS.parent).as_posix()}): "
        + ", ".join(claims)
        for path, claims in by_file.items()
    ]


if __name__ == "__main__":
    sys.stdout.write(page())
