"""The pages, and what they point at."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_PLACE = re.compile(r"`((?:solar|conf|tests|benchmarks|docs)/[\w./-]*)(?::([A-Za-z_][\w.]*))?`")


def places(page: Path) -> list[tuple[str, str | None]]:
    """Every `path` and `path.py:name` in code spans of a page."""
    return [(path, name) for path, name in _PLACE.findall(page.read_text(encoding="utf-8"))]


@cache
def names(path: Path) -> frozenset[str]:
    """Functions, classes, methods, fields, values and constants that a module defines, with dots below a class."""
    return frozenset(_defined(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> list[str]:
    defined = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.append(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            defined += _defined(node.body, f"{prefix}{node.name}.")
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        defined += [prefix + target.id for target in targets if isinstance(target, ast.Name)]
    return defined
