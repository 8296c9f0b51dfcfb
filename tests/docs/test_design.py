"""The tree and the layers of `docs/design.md` are those of the package."""

import re

from tests.docs.pages import ROOT
from tests.test_layers import MAY_IMPORT, WORK

TEXT = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_the_tree_has_a_line_for_each_folder_of_the_package() -> None:
    tree = TEXT.split("## The tree")[1].split("```")[1]
    drawn, package = set(), ""
    for indent, name in re.findall(r"^( +)(\w+)/ ", tree.split("\nconf/")[0], re.MULTILINE):
        package = name if len(indent) == 2 else package
        drawn.add(name if len(indent) == 2 else f"{package}/{name}")
    folders = {path.parent.relative_to(ROOT / "solar").as_posix() for path in (ROOT / "solar").rglob("__init__.py")}
    assert drawn == folders - {"."}


def test_the_table_of_layers_is_the_one_that_imports_are_held_against() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", TEXT.split("## Layers")[1], re.MULTILINE))
    assert rows.keys() == MAY_IMPORT.keys()
    for package, may_import in MAY_IMPORT.items():
        words = set(re.split(r", and |, ", rows[package])) - {"nothing"}
        work = WORK if "all packages that do work" in words else set()
        assert words - {"all packages that do work"} | work == may_import, package
