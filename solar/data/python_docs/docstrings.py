"""Find documented objects by reading source files. Only built-in modules of the interpreter are imported."""

import ast
import importlib
import importlib.metadata
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from solar.errors import DataError

_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "turtledemo",
} | {
    "models"  # a folder for each architecture: the same sentences hundreds of times
}
_SKIPPED_MODULES = {"ntpath", "pydoc_data.topics"}
_ALIASES = {
    "posixpath": "os.path",
    "_collections_abc": "collections.abc",
    "_pydecimal": "decimal",
    "_pydatetime": "datetime",
    "_pyio": "io",
}
_DOC_SETTERS = {"add_docstr", "_add_docstr", "add_newdoc", "add_newdoc_for_scalar_type"}


@dataclass(frozen=True)
class Documented:
    """An object with its docstring, unchanged."""

    name: str
    """Dotted name, without private parts."""
    kind: str
    """module, class, function, method or topic."""
    signature: str
    """`join(a, *p)`; empty if the source shows no arguments."""
    docstring: str


def topics() -> Iterator[Documented]:
    """The language reference that `help()` shows."""
    texts: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for name in sorted(texts):
        yield Documented(name, "topic", "", texts[name])


def builtins() -> Iterator[Documented]:
    """Objects written in C, which have no source to read."""
    for module_name in sorted({*sys.builtin_module_names, "builtins", "math"}):
        if module_name.startswith("_") or module_name in ("posix", "xxsubtype"):
            continue
        module = importlib.import_module(module_name)
        prefix = "" if module_name == "builtins" else f"{module_name}."
        for name, value in sorted(vars(module).items()):
            if name.startswith("_") or getattr(value, "__module__", None) != module_name:
                continue
            yield from _builtin(prefix + name, "class" if inspect.isclass(value) else "function", value)
            if inspect.isclass(value) and not issubclass(value, BaseException):
                for member_name, member in sorted(vars(value).items()):
                    if not member_name.startswith("_") and callable(member):
                        yield from _builtin(f"{prefix}{name}.{member_name}", "method", member)


def _builtin(name: str, kind: str, value: object) -> Iterator[Documented]:
    if isinstance(value.__doc__, str) and kind != "module":
        yield Documented(name, kind, "", value.__doc__)


def standard_library() -> Iterator[Documented]:
    """Every module of the standard library that has source, without tests."""
    yield from _read_folder(Path(sysconfig.get_path("stdlib")), "")


def distribution(name: str) -> Iterator[Documented]:
    """Every module of a distribution. Raises `DataError` if the distribution is not installed."""
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"packages: {name!r} is not installed; install it or drop it from the list") from None
    tops = sorted({file.parts[0] for file in files if file.suffix == ".py" and file.parts[0] != ".."})
    for top in tops:
        place = Path(str(importlib.metadata.distribution(name).locate_file(top)))
        if place.is_dir():
            yield from _read_folder(place, top + ".")


def _read_folder(root: Path, prefix: str) -> Iterator[Documented]:
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        if not _is_public(relative):
            continue
        parts = [*relative.parts[:-1], *([] if relative.name == "__init__.py" else [relative.stem])]
        module = (prefix + ".".join(parts)).strip(".")
        if module not in _SKIPPED_MODULES:
            yield from _read_module(file.read_bytes(), module)


def _is_public(file: Path) -> bool:
    """Whether a file documents what users see. Private folders are internal; private files often hold what is exported.

    >>> _is_public(Path("_inductor/ir.py")), _is_public(Path("_core/numeric.py")), _is_public(Path("lib/_impl.py"))
    (False, True, True)
    """
    folders = file.parts[:-1]
    internal = any(folder.startswith("_") and folder != "_core" for folder in folders)
    return not internal and not _SKIPPED_FOLDERS & set(folders) and not file.name.startswith("test_")


def _read_module(source: bytes, module: str) -> Iterator[Documented]:
    if b'"""' not in source and b"'''" not in source:
        return
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates and files of other Python versions
        return
    parts = (_ALIASES.get(part, part) for part in module.split("."))
    head = ".".join(part for part in parts if not part.startswith("_"))
    if head and (text := ast.get_docstring(tree)):
        yield Documented(head, "module", "", text)
    yield from _read_body(tree.body, head, "function")


def _read_body(body: list[ast.stmt], prefix: str, function_kind: str) -> Iterator[Documented]:
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _read_setter(node.value, prefix.split(".")[0])
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            yield from _read_setter(node.value, prefix, f"{prefix}.{node.targets[0].id}")
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}".strip(".")
        is_class = isinstance(node, ast.ClassDef)
        if text := ast.get_docstring(node):
            signature = "" if isinstance(node, ast.ClassDef) else f"{node.name}({_arguments(node.args)})"
            yield Documented(name, "class" if is_class else function_kind, signature, text)
        if isinstance(node, ast.ClassDef):
            yield from _read_body(node.body, name, "method")


def _arguments(arguments: ast.arguments) -> str:
    """Names of the arguments, without annotations, defaults and self.

    >>> _arguments(ast.parse("def f(self, a, b=1, *c, d, **e): pass").body[0].args)
    'a, b, *c, d, **e'
    """
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else ["*"] if arguments.kwonlyargs else []
    names += [argument.arg for argument in arguments.kwonlyargs]
    names += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return ", ".join(names)


def _read_setter(call: ast.Call, top: str, name: str = "") -> Iterator[Documented]:
    """Docstrings that Python code sets on objects written in C: `add_docstr(torch.abs, "...")`."""
    if getattr(call.func, "id", getattr(call.func, "attr", "")) not in _DOC_SETTERS or len(call.args) < 2:
        return
    texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    text = max(texts, key=len, default="")
    first, second = call.args[0], call.args[1]
    if not name and isinstance(first, ast.Attribute):
        name = ast.unparse(first)
    elif not name and isinstance(first, ast.Constant) and isinstance(second, ast.Constant):
        name = f"{first.value!s}.{second.value!s}"
    name = ".".join(part for part in name.split(".") if not part.startswith("_"))
    if name.startswith(top) and len(text) > len(name):
        yield Documented(name, "function", "", text)
