"""A model that diverged is shown as that; it does not keep the report from being made."""

import math
from pathlib import Path

import pytest

from solar.report.card import write_card
from solar.report.sections.controls import recoveries
from solar.report.sections.tables import score_table

from .run_on_disk import curve, scored
from .test_page import page


@pytest.mark.parametrize("broken", [None, math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_said_so_and_marks_nothing_as_best(chain, broken):
    rows = [scored("base", 9.0, 0.4, 8), scored("upscale", 3.5, 0.3), scored("pretrain", 2.6, 0.5)]
    rows[0] |= {"nats_per_token": broken, "bits_per_byte": broken}
    chain.entries.pop()
    chain.add("scores", "evaluate", ("data",), scores_json=rows)
    titles, table = score_table(chain.run)
    column = titles[1:].index("loss, nats a token")
    cells = {entry.stage: cells[column] for entry, cells in table}
    assert [(cells[name].text, cells[name].best) for name in ("base", "upscale", "pretrain")] == [
        ("not finite", False),
        ("3.500", False),
        ("2.600", True),
    ]
    _, parsed = page(chain)
    assert "not finite" in parsed.text and "nan" not in parsed.text.lower()


def test_a_training_log_with_losses_that_are_not_finite_is_drawn_without_them(disk):
    disk.add("data", "prepare_data", tokens_json={"splits": {"train": {"sources": {}}}})
    disk.add("base", "pretrain", ("data",), model__config_json={}, logs__metrics_jsonl=curve(3.0, math.nan, 2.0))
    log = [{"step": 0, "tokens": 0, "valid_loss": None}, {"step": 1, "tokens": 10, "valid_loss": math.inf}]
    disk.add("tuned", "pretrain", ("base", "data"), model__config_json={}, logs__metrics_jsonl=log)
    page(disk)
    assert recoveries(disk.run) == []


def test_a_card_calls_depth_up_scaled_only_what_was_grown(chain, tmp_path: Path):
    for stage, tags in (
        ("base", ""),
        ("pretrain", "tags: [depth-up-scaling]"),
        ("merge", "tags: [depth-up-scaling, m"),
    ):
        entry = next(entry for entry in chain.entries if entry.stage == stage)
        write_card(entry, chain.run, tmp_path / "card.md")
        card = (tmp_path / "card.md").read_text()
        assert (tags in card) if tags else ("tags:" not in card)
