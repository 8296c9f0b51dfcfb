"""Looking at prepared data."""

import io
import json

import pytest
from rich.console import Console
from rich.text import Text

from solar.config.data import Format, Packing, Task
from solar.data.__main__ import find_tokens, main
from solar.data.show import TRAINED, show
from solar.errors import DataError

TALK = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}


def _texts(part) -> list[Text]:
    if isinstance(part, Text):
        return [part]
    inner = getattr(part, "renderable", None)
    return [text for child in ([inner] if inner else getattr(part, "renderables", [])) for text in _texts(child)]


def test_exactly_the_trained_tokens_are_coloured(prepared):
    found = prepared([TALK], Format.messages, task=Task.instruct, packing=Packing.best_fit)
    texts = [text for part in show(found.folder, "train", 1, 0, 0) for text in _texts(part)]
    coloured = [text.plain[span.start : span.end] for text in texts for span in text.spans if span.style == TRAINED]
    assert coloured == ["Because.</s>"]
    assert "<s>### User:\nWhy?" in "".join(text.plain for text in texts)


def test_counts_shares_and_what_was_left_out_are_printed(prepared, capsys, monkeypatch):
    pairs = [{"prompt": "Q", "chosen": "good", "rejected": "bad"}, {"prompt": "Q", "chosen": "x", "rejected": "x"}]
    found = prepared(pairs, Format.preference, task=Task.preference, packing=Packing.none)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", str(found.folder)]) == 0
    printed = capsys.readouterr().out
    assert "100.00%" in printed and "trained" in printed and "padding" in printed
    assert "chosen" in printed and "rejected" in printed and "identical_sides" in printed


def test_control_characters_in_data_do_not_reach_the_terminal(prepared):
    """T-E12."""
    found = prepared([{"text": "red \x1b[31m alert \x07"}])
    console = Console(record=True, width=100, file=io.StringIO())
    for part in show(found.folder, "train", 1, 0, 0):
        console.print(part)
    assert "\x1b[31m" not in console.export_text() and "\x07" not in console.export_text()


def test_a_stage_of_the_last_run_is_found_by_name(prepared, tmp_path):
    found = prepared([{"text": "x"}])
    root = tmp_path / "outputs"
    (root / "artifacts").mkdir(parents=True)
    found.folder.rename(root / "artifacts/sft_data-0123456789ab")
    run = root / "runs/name/date"
    run.mkdir(parents=True)
    (run / "artifacts.json").write_text(json.dumps({"sft_data": "sft_data-0123456789ab", "sft": "sft-1"}))
    assert find_tokens("sft_data", root) == root / "artifacts/sft_data-0123456789ab"
    with pytest.raises(DataError, match=r"sft: .*the last run \(.*\) has sft_data"):
        find_tokens("sft", root)


def test_what_is_not_there_is_one_line_and_status_1(tmp_path, capsys):
    assert main(["show", "nothing", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: nothing: ") and error.count("\n") == 1


def test_rows_before_the_first_are_one_line_and_status_1(prepared, capsys):
    folder = str(prepared([{"text": "x"}]).folder)
    assert main(["show", folder, "--start", "-5"]) == 1
    assert capsys.readouterr().err == "error: start, count: found -5 and 3, expected 0 or more\n"
