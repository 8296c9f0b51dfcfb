"""Every command line of solar that the pages and the YAML comments show."""

import re
import shlex
from pathlib import Path

from tests.docs.pages import PAGES, ROOT

_BLOCK = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)
_SPAN = re.compile(r"`(python -m solar[^`]*)`")
_COMMENT = re.compile(r"^\s*# .*?(python -m solar\.run .*|\+experiment=\w+ stages.*)$", re.MULTILINE)
_ELLIPSIS = ("...", "key=a,b", "STAGE", "NAME", "ROOT", "FOLDER")
"""What marks a pattern rather than a command."""


def commands() -> list[list[str]]:
    """The words behind `python -m`, each command once: `["solar.run", "dry_run=true"]`."""
    found: dict[str, list[str]] = {}
    for line in [*_of_pages(), *_of_yaml()]:
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "-m"] and not any(mark in line for mark in _ELLIPSIS):
            found[" ".join(words)] = words[2:]
    return list(found.values())


def _of_pages() -> list[str]:
    lines: list[str] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines += [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines()]
        lines += [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", text))]
    return [line for line in lines if line.startswith("python -m solar")]


def _of_yaml() -> list[str]:
    lines: list[str] = []
    for file in sorted(Path(ROOT / "conf").rglob("*.yaml")):
        lines += [match.removeprefix("python -m solar.run ") for match in _COMMENT.findall(file.read_text("utf-8"))]
    return [f"python -m solar.run {line}" for line in lines]
