"""Files and functions that the pages name are there, and the tour's numbers agree with each other and with the code."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from solar.config.growth import UpscaleConfig
from solar.config.growth_plan import PlanName
from solar.config.links import rewrite
from solar.growth.plans import resolve
from solar.plan.identity import canonical_json
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


TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")


def test_the_tour_names_the_places_of_all_three_walks() -> None:
    named = {name for _, name in places(ROOT / "docs" / "tour.md") if name}
    assert TOUR.count("\n## Walk ") == 3
    assert {"from_rows", "Head.loss_sum", "resolve", "copy_range", "identity", "Store.publish"} <= named


def test_the_text_that_is_hashed_is_that_of_the_code_and_gives_the_id() -> None:
    (text,) = re.findall(r"^{\"config\":.*}$", TOUR, re.MULTILINE)
    config = UpscaleConfig(kind="upscale", plan=PlanName.dus, m=2, model="base")
    hashed = {"version": json.loads(text)["version"], "config": rewrite(config, lambda pointer: "0b2b28679ff9")}
    assert canonical_json(hashed) == text
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == "87bc2f57fe42"
    assert "`87bc2f57fe42`" in TOUR


def test_the_layers_of_the_tour_are_those_of_the_plan() -> None:
    plan = resolve(UpscaleConfig(plan=PlanName.dus, m=2), 8)
    assert f"the list {plan.sources}" in TOUR
    assert f"`{plan}`" in TOUR


def test_the_bytes_of_the_tour_add_up() -> None:
    """A Llama's layer of hidden size 96: attention with 4 heads and 2 for keys, an MLP of 256, two norms; float32."""
    layer = 4 * (2 * 96 * 96 + 2 * 96 * 48 + 3 * 96 * 256 + 2 * 96)
    base, header, base_header = 8 * layer + 4 * (2048 * 96 + 96), 8 + 11_872, 8 + 7_776
    assert base == 4_036_992
    for number in (header, header + base, 4 * layer, base_header, layer // 4, 1_957_736 - 1_606_760 + header + base):
        assert f"{number:,}" in TOUR
    assert f"{3121.39 / 606:.4f}" in TOUR
