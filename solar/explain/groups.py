"""Choices that a configuration group does not have, such as `trainer=cpuu`."""

import re
from collections.abc import Sequence
from pathlib import Path

from solar.errors import ConfigError, hint


def refuse_null_groups(arguments: Sequence[str], conf: Path) -> None:
    """Raises `ConfigError` for `trainer=null` and `trainer=`, which make Hydra crash."""
    for argument in arguments:
        group, equals, value = argument.lstrip("+").partition("=")
        if equals and not group:
            raise ConfigError(f"'{argument}': no key, expected key=value")
        if equals and value in ("null", "") and is_group(argument, conf):
            files = sorted(path.stem for path in (conf / group.split("@")[0]).glob("*.yaml"))
            raise ConfigError(f"{group}: found '{value}', expected one of {', '.join(files)}")


def missing_choice(text: str) -> str:
    found = re.search(r"Could not find '(.+?)'", text)
    options = re.findall(r"^\t(?!provider=)(\S+)$", text, flags=re.MULTILINE)
    if found is None:
        return text.splitlines()[0]
    group, _, name = found.group(1).rpartition("/")
    close = hint(name, options)
    listed = f" ({', '.join(options)})" if "did you mean" in close else ""
    return f"{group}: there is no '{name}'{close}{listed}"


def no_such_group(group: str, message: str) -> str:
    """The line for `optimizer=x`: the choice belongs to one or several places of the experiment."""
    places = re.search(r"override (?:one of )?(.+?)\?$", message, flags=re.MULTILINE)
    if places is not None:
        return f"{group}: choose it where it stands, such as {places[1].split(', ')[0]}=... (it stands at {places[1]})"
    if group == "hydra":
        return "hydra: holds Hydra's own settings, expected one of their keys, such as hydra.run.dir=..."
    return f"{group}: nothing to override; to add it write +{group}=..., docs/configuration.md lists all groups"


def is_group(argument: str, conf: Path) -> bool:
    """Whether an argument chooses one of the YAML files of a folder, as `trainer=gpu` does."""
    return (conf / argument.lstrip("+~").split("=")[0].split("@")[0]).is_dir()
