"""The list of faults that `make mutants` makes, and that the tests must find."""

from pathlib import Path

import pytest

from .run import ROOT, Mutant, mutants

ALL = mutants()


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_each_fault_can_be_made(mutant: Mutant) -> None:
    """The text that a fault replaces stands in its file once, and the tests that must fail exist."""
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.find) == 1
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name.partition('[')[0]}(" in text, test


def test_there_are_at_least_forty_faults_over_every_package() -> None:
    packages = {path.parent.name for path in (ROOT / "solar").glob("*/__init__.py")}
    assert len(ALL) >= 40
    assert packages - {Path(mutant.file).parts[1] for mutant in ALL} == set()
