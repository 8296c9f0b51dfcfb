"""Files and functions that the pages name are there."""

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, names, places


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_place_that_a_page_names_exists(page: Path) -> None:
    wrong = []
    for path, name in places(page):
        if not (ROOT / path).exists():
            wrong.append(f"no file {path}")
        elif name and name not in names(ROOT / path):
            wrong.append(f"no {name} in {path}")
    assert not wrong, "\n".join(wrong)


def test_the_tour_names_the_places_of_all_three_walks() -> None:
    walks = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8").split("\n## Walk ")[1:]
    named = [name for _, name in places(ROOT / "docs" / "tour.md") if name]
    assert len(walks) == 3
    assert {"from_rows", "Head.loss_sum", "resolve", "copy_range", "identity", "Store.publish"} <= set(named)
