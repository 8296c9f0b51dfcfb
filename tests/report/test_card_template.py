"""The card says which chat template a model has, by hash, and what differs from its base's."""

import hashlib
from pathlib import Path

from solar.report.card import write_card

from .run_on_disk import RunOnDisk

BASE = "{% for m in messages %}\n{{ m.role }}\n{% endfor %}"
TUNED = "{% for m in messages %}\n{{ m.content }} ```` \n{% endfor %}"


def _card(tmp_path: Path, templates: list[str | None]) -> str:
    disk = RunOnDisk(tmp_path)
    names = ("base", "sft")
    for place, (name, template) in enumerate(zip(names, templates, strict=True)):
        files = {} if template is None else {"model__tokenizer_config_json": {"chat_template": template}}
        disk.add(name, "sft" if place else "import_model", names[:place], model__config_json={}, **files)
    write_card(disk.entries[-1], disk.run, tmp_path / "card.md")
    return (tmp_path / "card.md").read_text()


def test_a_changed_template_is_shown_line_by_line(tmp_path: Path) -> None:
    """The fence is longer than any ticks inside, so that a template cannot write into the card."""
    text = _card(tmp_path, [BASE, TUNED])
    assert f"SHA-256 `{hashlib.sha256(TUNED.encode()).hexdigest()}`; it differs from that of `base`:" in text
    assert "`````diff\n--- base\n+++ sft\n" in text
    assert "\n-{{ m.role }}\n+{{ m.content }} ```` \n" in text


def test_a_template_that_stays_is_named_as_the_bases(tmp_path: Path) -> None:
    assert f"SHA-256 `{hashlib.sha256(BASE.encode()).hexdigest()}`, that of `base`." in _card(tmp_path, [BASE, BASE])


def test_a_template_where_the_base_has_none(tmp_path: Path) -> None:
    assert "`; no model that it descends from has one." in _card(tmp_path, [None, TUNED])


def test_a_model_without_a_template_says_nothing_of_it(tmp_path: Path) -> None:
    assert "Chat template" not in _card(tmp_path, [BASE, None])
