"""The string literals below fields and enumeration values, which Python itself throws away."""

import ast
import inspect
from dataclasses import is_dataclass
from enum import Enum
from itertools import pairwise
from typing import Any


def docstrings(config: type[Any]) -> dict[str, str]:
    """Name of a field or an enumeration value -> the literal below it; base classes are included."""
    meanings: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if base.__module__ == "enum" or not (is_dataclass(base) or issubclass(base, Enum)):
            continue
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):  # an enumeration that is made by a call has no body
            continue
        (definition,) = ast.parse(source).body
        assert isinstance(definition, ast.ClassDef)
        for node, after in pairwise(definition.body):
            if isinstance(node, ast.AnnAssign | ast.Assign) and (text := _literal(after)):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                meanings[ast.unparse(target)] = " ".join(text.split())
    return meanings


def docstring_of(config: type[Any]) -> str:
    """The docstring of a class, or the literal below the call that makes an enumeration."""
    module = inspect.getmodule(config)
    assert module is not None
    for node, after in pairwise(ast.parse(inspect.getsource(module)).body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == config.__name__:
            return _literal(after)
    return inspect.cleandoc(config.__doc__ or "")


def _literal(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""
