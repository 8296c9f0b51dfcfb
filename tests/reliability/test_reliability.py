"""docs/reliability.md says what the tests hold."""

from pathlib import Path

from .document import held_by, page, promises

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_every_promise_has_a_test() -> None:
    tests = held_by()
    assert [identity for identity, (_, given) in promises().items() if given and not tests[identity]] == []


def test_no_test_carries_an_id_that_promises_nothing() -> None:
    known = {identity for identity, (_, given) in promises().items() if given}
    assert set(held_by()) - known == set()


def test_the_page_is_written_from_the_tests() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
