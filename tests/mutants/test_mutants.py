"""The list of faults that `make mutants` makes, and that the tests must find."""

from pathlib import Path

import pytest

from .run import ROOT, Mutant, mutants, outcome

ALL = mutants()
SAMPLE = (
    "hash not checked",
    "overlapping tensors accepted",
    "list with an item a layer stays as it is",
    "runs of words one too long",
    "checkpoints left out of the disk estimate",
    "worst value called best",
)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_fault_is_caught(name: str, tmp_path: Path) -> None:
    (mutant,) = [mutant for mutant in ALL if mutant.name == name]
    assert outcome(mutant, tmp_path)[0] == "caught"


HARMLESS = ("solar/config/duration.py", "expected more than nothing", "expected more than none")
SKIPPED = ("tests/engine/test_stop.py", "def test_a_second_signal", "@pytest.mark.skip\ndef test_a_second_signal")
NO_PYTHON = ("tests/engine/test_stop.py", "import signal\n", "import\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [(HARMLESS, "missed"), (SKIPPED, "broken"), (NO_PYTHON, "broken")],
    ids=lambda value: str(value)[:7],
)
def test_what_no_test_sees_is_missed_and_what_no_test_runs_is_broken(
    change: tuple[str, str, str], said: str, tmp_path: Path
) -> None:
    mutant = Mutant("one", *change, ["tests/engine/test_stop.py::test_a_second_signal_does_not_wait"])
    assert outcome(mutant, tmp_path)[0] == said
