"""YAML files of the user that cannot be read."""

import re
from collections.abc import Sequence
from pathlib import Path

from yaml import MarkedYAMLError
from yaml.reader import ReaderError


def unreadable(error: Exception, arguments: Sequence[str]) -> str | None:
    """The line for a file that is no YAML or lacks what Hydra needs; None for other errors."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        place = error.problem_mark
        return f"{place.name}:{place.line + 1}: {error.problem or error.context}"
    if isinstance(error, UnicodeDecodeError | ReaderError):
        own = own_folder(arguments)
        files = sorted(own.rglob("*.yaml"), key=lambda file: f"={file.stem}" not in " ".join(arguments)) if own else []
        return next((f"{file}: this is not UTF-8 text" for file in files if _is_not_text(file)), None)
    match = re.match(r"Invalid defaults list in '(.+?)', (.+)", str(error))
    return f"{match[1]}.yaml: {match[2]}" if match else None


def _is_not_text(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    return False


def own_folder(arguments: Sequence[str]) -> Path | None:
    """The folder that `--config-dir` names."""
    for place, argument in enumerate(arguments):
        if argument in ("--config-dir", "-cd"):
            return Path(*arguments[place + 1 : place + 2]).absolute()
        if argument.startswith("--config-dir="):
            return Path(argument.partition("=")[2]).absolute()
    return None
