"""The string literals below fields and enumeration values, which Python itself throws away."""

import ast
import inspect
from itertools import pairwise
from typing import Any


def docstrings(config: type[Any]) -> dict[str, str]:
    """Name of a field or an enumeration value -> the literal below it; base classes are included."""
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if not base.__module__.startswith("solar."):
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
                texts[ast.unparse(target)] = " ".join(text.split())
    return texts


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
