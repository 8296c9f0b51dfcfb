"""Every key there is, as Markdown, from the dataclasses: `make docs` writes it to `docs/configuration.md`."""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING as REQUIRED
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from solar.config import root
from solar.config.kinds import STAGES


def document() -> Iterator[str]:
    """The lines of the page."""
    yield "# Configuration\n"
    yield "Made from the dataclasses in `solar/config` by `make docs`. `required` means: YAML says it.\n"
    yield "## Stages\n"
    yield "Everything under `stages.<name>` is part of what a stage *is*; change it and the stage runs anew.\n"
    for kind, row in STAGES.items():
        yield f"### kind: {kind}\n\n{inspect.getdoc(row.config)}\n\nLeaves: {row.produces}.\n"
        yield from _table(row.config)
    yield "## Everything else\n\nHow and where; never changes what is computed.\n"
    for title, config in (("root", root.SolarConfig), ("trainer", root.TrainerConfig), ("logger", root.LoggerConfig)):
        yield f"### {title}\n\n{inspect.getdoc(config)}\n"
        yield from _table(config)


def _table(config: type[Any]) -> Iterator[str]:
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    yield from _rows(config, "")
    yield ""


def _rows(config: type[Any], prefix: str) -> Iterator[str]:
    meanings = field_meanings(config)
    for item in fields(config):
        if item.name == "kind":
            continue
        inner = item.type if isinstance(item.type, type) and is_dataclass(item.type) else None
        kind = item.metadata.get("reference")
        kind = f"name of a {kind} stage" if kind else _name(item.type)
        meaning = meanings.get(item.name, "").replace("\n", " ").replace("|", "\\|")
        yield f"| `{prefix}{item.name}` | {kind} | {_default(item)} | {meaning} |"
        if inner is not None and inner.__module__ != root.__name__:
            yield from _rows(inner, f"{prefix}{item.name}.")


def _name(annotation: Any) -> str:
    name = getattr(annotation, "__name__", None) if not getattr(annotation, "__args__", None) else None
    return (name or str(annotation).replace("solar.config.", "")).split(".")[-1].replace("|", "or")


def _default(item: Any) -> str:
    if item.default is REQUIRED:
        return ""
    if item.default == MISSING:
        return "required"
    value = getattr(item.default, "value", item.default)
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def field_meanings(config: type[Any]) -> dict[str, str]:
    """Field -> the literal below it, base classes included."""
    meanings: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if not is_dataclass(base):
            continue
        body = ast.parse(inspect.cleandoc(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
                value = after.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    meanings[node.target.id] = inspect.cleandoc(value.value)
    return meanings


if __name__ == "__main__":
    sys.stdout.write("\n".join(document()) + "\n")
