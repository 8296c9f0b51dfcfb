"""`docs/papers.md` names keys and values that there are, and leaves no method of the configuration out."""

import re
from enum import Enum

import pytest

from solar.config.document import keys
from solar.config.growth_plan import Init, PlanName, SeamInit
from solar.config.kinds import STAGES
from solar.config.merging import MergeMethod
from solar.config.optimizer import OptimizerName, ScheduleName
from solar.config.preference import ChunkBy, PreferenceLoss
from solar.config.training import AverageKind
from tests.docs.pages import ROOT

TEXT = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split(" | ") for line in TEXT.splitlines() if line.startswith("| ") and " `solar/" in line]
CELLS = [re.findall(r"`([^`]+)`", row[2]) for row in ROWS]


@pytest.mark.parametrize("cell", CELLS, ids=" ".join)
def test_each_row_names_a_kind_and_keys_of_it(cell: list[str]) -> None:
    kind, *named = cell
    types = {path: annotation for path, _, annotation, _ in keys(STAGES[kind].config)}
    assert named, "names no key"
    for text in named:
        key, _, value = text.partition(": ")
        assert key in types, f"{kind} has no key {key}"
        if value:
            assert value in {option for enum in _enums(types[key]) for option in enum}, f"{key} has no value {value}"


def _enums(annotation: object) -> list[type[Enum]]:
    parts = getattr(annotation, "__args__", (annotation,))
    return [part for part in parts if isinstance(part, type) and issubclass(part, Enum)]


def test_each_row_names_code_and_a_test() -> None:
    assert len(ROWS) > 50
    for row in ROWS:
        assert "`solar/" in row[3], row[0]
        assert re.search(r"`tests/[\w/]+\.py:test_\w+`", row[4]), row[0]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("plan", set(PlanName) - {PlanName.explicit}),
        ("init", set(Init)),
        ("seam", set(SeamInit) - {SeamInit.none}),
        ("optimizer.name", set(OptimizerName)),
        ("schedule.name", {ScheduleName.wsd, ScheduleName.infinite}),
        ("average.kind", set(AverageKind) - {AverageKind.none}),
        ("loss", set(PreferenceLoss)),
        ("chunk_by", {ChunkBy.accuracy, ChunkBy.margin}),
        ("method", set(MergeMethod)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the order of a set differs between processes
)
def test_no_method_of_the_configuration_is_left_out(key: str, values: set[str]) -> None:
    assert {f"{key}: {value}" for value in values} <= {text for cell in CELLS for text in cell}
