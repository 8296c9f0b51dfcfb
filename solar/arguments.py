"""How the commands read their words: names first, then `key=value`, typed by a dataclass; `--key value` is the same.

A word is `key=value` if it begins with small letters and `=`; so `./lr=1` and `/runs/lr=1` are names of folders.
"""

import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import MISSING as REQUIRED
from dataclasses import fields
from enum import Enum
from os.path import expanduser
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import MISSING as OMITTED

from solar.config.docstrings import docstrings
from solar.engine.disk import disk_problem
from solar.environment import grow_segments
from solar.errors import ConfigError, SolarError, hint, printable_line
from solar.redaction import redact, redact_tracebacks

T = TypeVar("T")
_SETTING = re.compile(r"[a-z_]+=")
_HELP = {"-h", "--help"}
_IN_WORDS = {
    str(int): "a whole number",
    str(float): "a number",
    str(bool): "true or false",
    str(list[int]): "a list of whole numbers such as [0,1,1,2]",
    str(list[float]): "a list of numbers such as [0.5,0.5]",
    str(list[list[int]]): "a list of ranges such as [[0,24],[8,32]]",
}


def run(
    words: Sequence[str] | None,
    usage: str,
    options: type[T],
    names: Sequence[str],
    body: Callable[[list[str], T], None],
    hidden: Sequence[str] = (),
) -> int:
    """Read the words and call `body` with the names and the options; returns the exit status.

    0: done, or help was asked for; 1: refused, after a line for each problem; 2: no words, so the usage was printed.
    """
    grow_segments()
    words = sys.argv[1:] if words is None else words
    redact_tracebacks()
    if not words or _HELP & set(words):
        sys.stdout.write(f"{usage.strip()}\n{_help(options, hidden)}")
        return 0 if words else 2
    warnings.formatwarning = warning
    try:
        body(*read(words, options, names, hidden))
    except SolarError as error:
        return _refuse(*error.lines)
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
        return _refuse(problem.removesuffix(" with paths.root=DIR"))
    return 0


def read(
    words: Sequence[str], options: type[T], names: Sequence[str] = (), hidden: Sequence[str] = ()
) -> tuple[list[str], T]:
    """The words that are names, and all others as options.

    `names` says what the names mean, in order; `MODEL...` may stand for several. Fields in `hidden` are no options.

    Raises:
        ConfigError: a key or value that no option has, a key given twice, or names missing or too many.
    """
    settings, given = _split(words)
    known = [item.name for item in fields(options) if item.name not in hidden]  # type: ignore[arg-type]
    kinds = get_type_hints(options)
    values: dict[str, Any] = {}
    for key, text in settings:
        if key not in known:
            raise ConfigError(f"{key}: no such option{hint(key, known)} (a folder's name with '=' begins with ./)")
        if key in values:
            raise ConfigError(f"{key}: found twice, expected one value")
        values[key] = _value(key, text, kinds[key])
    repeated = any(name.endswith("...") for name in names)
    if len(given) > len(names) and not repeated:
        raise ConfigError(f"{given[len(names)]}: found a word without '=', expected key=value")
    if len(given) < len(names):
        raise ConfigError(f"{' '.join(names)}: found {len(given)} of these, expected all; --help says more")
    return given, options(**values)


def _split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(key, value) of settings, and the other words."""
    settings, names, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            key, equals, value = word.removeprefix("--").partition("=")
            if not equals and not rest:
                raise ConfigError(f"{word}: found no value, expected {key}=value")
            settings.append((key.replace("-", "_"), value if equals else rest.pop(0)))
        elif _SETTING.match(word):
            key, _, value = word.partition("=")
            settings.append((key, value))
        else:
            names.append(expanduser(word))  # noqa: PTH111  (the name of a stage is no `Path`)
    return settings, names


def _value(key: str, text: str, kind: Any) -> Any:
    """A word of the command line as its field's type."""
    accepted = [each for each in get_args(kind) or (kind,) if each is not type(None)]
    expected = accepted[0] if get_origin(kind) is not list and len(accepted) == 1 else kind
    if text == "null" and type(None) in get_args(kind):
        return None
    if expected is str or expected is Path:
        return expected(text) if expected is str else Path(text).expanduser()
    if isinstance(expected, type) and issubclass(expected, Enum):
        choices = [choice.value for choice in expected]
        if text not in choices:
            raise ConfigError(f"{key}: found {text}, expected one of {', '.join(choices)}")
        return expected(text)
    try:
        value = float(text) if expected is float else json.loads(text)
    except ValueError:
        value = text
    if not _fits(value, expected):
        raise ConfigError(f"{key}: found {text or 'no value'}, expected {_IN_WORDS[str(expected)]}")
    return value


def _fits(value: Any, expected: Any) -> bool:
    if get_origin(expected) is list:
        return isinstance(value, list) and all(_fits(item, get_args(expected)[0]) for item in value)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is expected


def _help(options: type[Any], hidden: Sequence[str]) -> str:
    """A line for each option: its default, and what it means."""
    meanings, lines = docstrings(options), []
    for item in fields(options):
        if item.name not in hidden:
            setting = f"{item.name}={_default(item.default)}"
            lines.append(f"  {setting:<24} {' '.join(meanings.get(item.name, '').split())}".rstrip())
    return "\n".join(["\noptions:", *lines, ""]) if lines else ""


def _default(value: Any) -> str:
    if value is REQUIRED or value is None or value == OMITTED:
        return "..."
    value = getattr(value, "value", value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def warning(message: object, *place: object, **details: object) -> str:
    """For `warnings.formatwarning`: the message as one line, without the place in the code."""
    return f"warning: {printable_line(redact(str(message)))}\n"


def _refuse(*problems: str) -> int:
    for problem in problems:
        sys.stderr.write(f"error: {printable_line(redact(problem))}\n")
    return 1
