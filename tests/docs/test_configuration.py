"""`docs/configuration.md` is the generator's output, and holds every key that a user can set."""

import re
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from solar.config.data import OnError
from solar.config.document import document
from solar.config.kinds import STAGES
from solar.config.root import LoggerConfig, PathsConfig, SolarConfig, TrainerConfig
from solar.config.training import TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROOTS = [SolarConfig, TrainerConfig, LoggerConfig, PathsConfig, *(kind.config for kind in STAGES.values())]


def test_the_committed_page_is_what_the_generator_writes() -> None:
    assert "\n".join(document()) + "\n" == TEXT, "run `make docs`"


def _section(title: str) -> dict[str, list[str]]:
    """Key -> type, default and meaning of the table under a heading."""
    body = TEXT.split(f"### {title}\n", 1)[1].split("\n### ")[0].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \| (.*) \|$", body, re.MULTILINE)
    return {key: list(cells) for key, *cells in rows}


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(part for inner in get_args(annotation) for part in _parts(inner))]


@pytest.mark.parametrize("kind", STAGES)
def test_each_kind_lists_its_keys_and_those_of_every_dataclass_inside(kind: str) -> None:
    config = STAGES[kind].config
    listed = set(_section(kind))
    if issubclass(config, TrainConfig):
        listed |= set(_section("Every stage that trains"))
    for name, annotation in get_type_hints(config).items():
        if name == "kind":
            continue
        assert name in listed, f"{kind}: {name}"
        for part in filter(is_dataclass, _parts(annotation)):
            inside = {key.rsplit(".", 1)[-1] for key in listed if re.match(rf"{name}(\.<name>|\[\])?\.", key)}
            assert {item.name for item in fields(part)} <= inside, f"{kind}: {name}"


def test_keys_of_entries_by_name_and_of_nested_entries_have_their_whole_path() -> None:
    listed = _section("prepare_data")
    assert listed["sources.<name>.share"][:2] == ["float or null", "`null`"]
    assert listed["decontaminate.against.<name>.stage"][0] == "name of a text stage"
    assert listed["switches[].at_tokens"][:2] == ["int", "required"]
    assert _section("Every stage that trains")["average.kind"][1] == "`none`"
    assert _section("stepwise_dpo")["steps[].beta"][1] == "`null`"


def test_defaults_are_written_as_yaml_takes_them() -> None:
    assert _section("trainer")["trainer.num_workers"][1] == "`null`"
    assert _section("trainer")["trainer.tensor_parallel"][1] == "`1`"
    assert _section("trainer")["trainer.compile"][1] == "`null`"
    assert _section("trainer")["trainer.deterministic"][1] == "`false`"
    assert _section("report")["of"][1] == '`["*"]`'


def _enumerations() -> set[type[Enum]]:
    pending, seen = list(ROOTS), set()
    enumerations: set[type[Enum]] = set()
    while pending:
        config = pending.pop()
        seen.add(config)
        for annotation in get_type_hints(config).values():
            for part in _parts(annotation):
                if is_dataclass(part) and part not in seen:
                    pending.append(part)
                elif isinstance(part, type) and issubclass(part, Enum):
                    enumerations.add(part)
    return enumerations


@pytest.mark.parametrize("enumeration", sorted(_enumerations(), key=str), ids=lambda each: each.__name__)
def test_each_value_of_an_enumeration_has_a_meaning(enumeration: type[Enum]) -> None:
    body = TEXT.split(f"### {enumeration.__name__}\n", 1)[1].split("\n### ")[0]
    if enumeration is OnError:  # made by a call, for `raise` is a keyword: the text above it names both values
        assert "`raise` stops" in body
        assert "`skip` counts" in body
        return
    meanings = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", body, re.MULTILINE))
    assert list(meanings) == [value.value for value in enumeration]
    assert all(meanings.values()), [value for value, meaning in meanings.items() if not meaning]


def test_each_key_has_a_meaning() -> None:
    bare = re.findall(r"^\| `([^`]+)` \|.*\|  \|$", TEXT, re.MULTILINE)
    assert not bare, bare
