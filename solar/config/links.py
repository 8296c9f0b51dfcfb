"""Where a stage's configuration points outside itself: other stages, files, installed packages."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from os.path import expanduser
from typing import Any

from solar.config.plain import as_plain

ALL = "*"
"""In a list of references: every stage of the plan that leaves the product."""


@dataclass(frozen=True)
class Pointer:
    """One value of a field that was declared with `reference(...)` or `content(...)`."""

    key: str
    """Path of the field below the stage, such as `sources.docs.stage` or `models.0`."""
    role: str
    """`reference` or `content`."""
    to: str
    """The product that a reference asks for, or the kind of content."""
    value: str


def pointers(config: Any, role: str, prefix: str = "") -> Iterator[Pointer]:
    """All pointers of one role in a configuration, in the order of its fields."""
    if isinstance(config, dict):
        for name, value in config.items():
            yield from pointers(value, role, f"{prefix}{name}.")
    elif is_dataclass(config):
        for item in fields(config):
            value, key = getattr(config, item.name), f"{prefix}{item.name}"
            if role not in item.metadata:
                yield from pointers(value, role, f"{key}.")
            elif isinstance(value, list):
                for position, element in enumerate(value):
                    yield Pointer(f"{key}.{position}", role, item.metadata[role], element)
            elif value is not None:
                yield Pointer(key, role, item.metadata[role], value)


def rewrite(config: Any, replace: Callable[[Pointer], Any], prefix: str = "") -> Any:
    """The configuration as plain data with each pointer replaced; the stage's id is a hash of the result.

    Null fields are left out, so that adding a field with a null default changes no id; so are fields of `pace`.
    Entries by name (such as sources of data) become a list, because their order counts: the first of duplicates stays.
    """
    if isinstance(config, dict):
        plain = {str(name): rewrite(value, replace, f"{prefix}{name}.") for name, value in config.items()}
        return [*map(list, plain.items())] if any(map(is_dataclass, config.values())) else plain
    if isinstance(config, list) and any(map(is_dataclass, config)):
        return [rewrite(element, replace, f"{prefix}{position}.") for position, element in enumerate(config)]
    if not is_dataclass(config):
        return as_plain(config)
    plain = {}
    for item in (item for item in fields(config) if "pace" not in item.metadata):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        role = next((role for role in ("reference", "content") if role in item.metadata), None)
        if role is None:
            plain[item.name] = rewrite(value, replace, f"{key}.")
        elif isinstance(value, list):
            made = [Pointer(f"{key}.{i}", role, item.metadata[role], element) for i, element in enumerate(value)]
            plain[item.name] = [replace(pointer) for pointer in made]
        elif value is not None:
            plain[item.name] = replace(Pointer(key, role, item.metadata[role], value))
    return {name: value for name, value in plain.items() if value is not None}


def expand_home(config: Any) -> None:
    """Replace a leading `~` in the paths that a configuration points at, in place."""
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            expand_home(value)
    elif is_dataclass(config):
        for item in fields(config):
            value = getattr(config, item.name)
            if item.metadata.get("content") not in ("path", "source"):
                expand_home(value)
            elif isinstance(value, str):
                setattr(config, item.name, expanduser(value))  # noqa: PTH111  (a glob is no `Path`)


def redirect(config: Any, names: Mapping[str, str]) -> None:
    """Rename the stages that references name, in place: `names` is old name -> new name."""
    if isinstance(config, dict):
        for value in config.values():
            redirect(value, names)
    elif is_dataclass(config):
        for item in fields(config):
            value = getattr(config, item.name)
            if "reference" not in item.metadata:
                redirect(value, names)
            elif isinstance(value, list):
                setattr(config, item.name, [names.get(element, element) for element in value])
            elif value is not None:
                setattr(config, item.name, names.get(value, value))
