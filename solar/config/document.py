"""Writes every configuration key as Markdown, from the dataclasses: `make docs` puts it in `docs/configuration.md`."""

import inspect
import json
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any

from omegaconf import MISSING

from solar.config.base import StageConfig
from solar.config.data import FIELDS, Format
from solar.config.docstrings import docstring_of, docstrings
from solar.config.growth_plan import PARAMETERS, PlanName
from solar.config.kinds import STAGES
from solar.config.merging import TAKES, MergeMethod
from solar.config.root import LoggerConfig, PathsConfig, SolarConfig, TrainerConfig
from solar.config.training import TrainConfig

PRELUDE = """# Configuration

This page is generated from the dataclasses in `solar/config` by `make docs`.

- `<name>` in a key stands for a name that you choose, `[]` for each entry of a list.
- `required` means that there is no default in Python: a recipe in `conf/` or the experiment gives the value.
- `null` means not given. Where a type names an enumeration, [Values](#values) says what each value means.

## Stages

Every key under `stages.<name>` is part of what the stage *is*: change the value, and the stage runs again. A few
keys only set the pace of the work, and are marked so. `stages.<name>.kind` says which of the following tables holds.
"""

ELSEWHERE = """## Everything else

How and where the work is done. These keys are no part of a stage's identity, with one exception: where dropout or the
balance loss of experts makes the result depend on how a global batch is cut, micro-batch and replicas count.
"""

READ_BY_VALUE: dict[type[Enum], Mapping[Any, Any]] = {Format: FIELDS, MergeMethod: TAKES, PlanName: PARAMETERS}
"""Enumeration -> value -> the fields or settings that this value reads."""


def document() -> Iterator[str]:
    """The lines of the page."""
    yield PRELUDE
    for kind, row in STAGES.items():
        yield f"### {kind}\n\n{inspect.getdoc(row.config)}\n\nLeaves: {row.produces}.\n"
        trains = issubclass(row.config, TrainConfig)
        if trains:
            yield "The keys of [every stage that trains](#every-stage-that-trains), and:\n"
        yield from _table(row.config, shared=TrainConfig if trains else StageConfig)
    yield "### Every stage that trains\n\n`pretrain`, `sft`, `dpo` and `stepwise_dpo` have these keys.\n"
    yield from _table(TrainConfig, shared=StageConfig)
    yield ELSEWHERE
    yield from _table(SolarConfig)
    groups: list[tuple[str, type[Any]]] = [("trainer", TrainerConfig), ("logger", LoggerConfig), ("paths", PathsConfig)]
    for name, config in groups:
        yield f"### {name}\n\n{inspect.getdoc(config)}\n"
        yield from _table(config, prefix=f"{name}.")
    yield "## Values\n\nWhat the values of each enumeration mean.\n"
    for enumeration in sorted(_enumerations(), key=lambda enumeration: enumeration.__name__):
        yield from _values(enumeration)


def _table(config: type[Any], prefix: str = "", shared: type[Any] | None = None) -> Iterator[str]:
    """The keys of a dataclass, nested ones too; not those it inherits from `shared`."""
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    inherited = {item.name for item in fields(shared)} if shared else set()
    yield from (_row(*entry) for entry in keys(config, prefix) if re.split(r"[.[]", entry[0])[0] not in inherited)
    yield ""


def keys(config: type[Any], prefix: str = "") -> Iterator[tuple[str, "Field[Any]", Any, str]]:
    """Each key of a dataclass: its path, its field, the field's type, and the docstring below the field."""
    types, meanings = typing.get_type_hints(config), docstrings(config)
    for item in fields(config):
        annotation, path = types[item.name], f"{prefix}{item.name}"
        inner, suffix = _nested(annotation)
        yield path, item, annotation, meanings.get(item.name) or _docstring_of_type(inner or annotation)
        if inner is not None and config is not SolarConfig:
            yield from keys(inner, f"{path}{suffix}.")


def _nested(annotation: Any) -> tuple[type[Any] | None, str]:
    """The dataclass inside a type, and how a key names one of its instances."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and is_dataclass(annotation):
        return annotation, ""
    if origin is UnionType:
        return _nested(parts[0])
    if origin in (dict, list) and isinstance(parts[-1], type) and is_dataclass(parts[-1]):
        return parts[-1], ".<name>" if origin is dict else "[]"
    return None, ""


def _docstring_of_type(annotation: Any) -> str:
    """What stands in for a field's own docstring: that of the dataclass or enumeration that is its type."""
    annotation = next(iter(typing.get_args(annotation)), annotation)
    documented = isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, Enum))
    return docstring_of(annotation) if documented else ""


def _row(path: str, item: "Field[Any]", annotation: Any, docstring: str) -> str:
    product = item.metadata.get("reference")
    several = typing.get_origin(annotation) is list
    kind = "" if product in (None, "any") else f"{product} "
    names = f"names of {kind}stages" if several else f"name of a {kind}stage"
    meaning = " ".join(docstring.split()).replace("|", "\\|")
    pace = " Sets the pace only: no part of the identity." if "pace" in item.metadata else ""
    return f"| `{path}` | {names if product else _type(annotation)} | {_default(item)} | {meaning}{pace} |"


def _type(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is UnionType:
        return f"{_type(parts[0])} or null"
    if origin is dict:
        return f"{_type(parts[1])}, by name" if is_dataclass(parts[1]) else f"mapping of name to {_type(parts[1])}"
    if origin is list:
        return f"list of {_type(parts[0])}"
    if is_dataclass(annotation):
        return "keys below" if annotation is not StageConfig else "stage"
    if issubclass(annotation, Enum):
        values = ", ".join(f"`{value.value}`" for value in annotation)
        return f"[{annotation.__name__}](#{annotation.__name__.lower()}): {values}"
    return str(annotation.__name__)


def _default(item: "Field[Any]") -> str:
    value = item.default
    if value is NO_DEFAULT:
        assert item.default_factory is not NO_DEFAULT
        value = item.default_factory()
    if value == MISSING:
        return "required"
    if is_dataclass(value):
        return ""
    return f"`{json.dumps(value).strip(chr(34))}`"


def _enumerations() -> set[type[Enum]]:
    """Every enumeration that is the type of some key."""
    configs = [SolarConfig, TrainerConfig, LoggerConfig, PathsConfig, *(row.config for row in STAGES.values())]
    types = {annotation for config in configs for _, _, annotation, _ in keys(config)}
    types |= {part for annotation in types for part in typing.get_args(annotation)}
    return {each for each in types if isinstance(each, type) and issubclass(each, Enum)}


def _values(enumeration: type[Enum]) -> Iterator[str]:
    meanings = docstrings(enumeration)
    yield f"### {enumeration.__name__}\n\n{docstring_of(enumeration)}\n"
    if not meanings and enumeration not in READ_BY_VALUE:
        return
    yield "| value | meaning |\n| --- | --- |"
    for value in enumeration:
        meaning = meanings.get(value.name, "").replace("|", "\\|")
        if reads := READ_BY_VALUE.get(enumeration, {}).get(value):
            ordered = sorted(reads) if isinstance(reads, set) else reads
            meaning = f"{meaning} Reads {', '.join(f'`{name}`' for name in ordered)}.".strip()
        yield f"| `{value.value}` | {meaning} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write("\n".join(document()) + "\n")
