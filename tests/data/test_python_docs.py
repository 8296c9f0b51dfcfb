"""The documentation of this Python: clean, deterministic, split by object."""

import hashlib
import json
from pathlib import Path

import pytest

from solar.data.python_docs import docstrings, prose
from solar.data.python_docs.python_docs import gather
from solar.errors import DataError


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("docs")
    return output, gather(["rich"], 0.05, 0, output)


def test_metrics_state_size_and_hash_of_each_file(folder):
    output, metrics = folder
    for name, facts in metrics["files"].items():
        content = (output / f"{name}.jsonl").read_bytes()
        assert (facts["bytes"], facts["samples"]) == (len(content), content.count(b"\n"))
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert metrics["train_text_bytes"] > 1_500_000


def test_the_same_python_gives_the_same_bytes_and_another_seed_another_split(folder, tmp_path):
    _, metrics = folder
    assert gather(["rich"], 0.05, 0, tmp_path) == metrics
    (tmp_path / "other").mkdir()
    assert gather(["rich"], 0.05, 1, tmp_path / "other") != metrics


def test_a_held_out_object_occurs_in_no_training_file(folder):
    """T-C9."""
    output, _ = folder
    documents = _read(output / "documents.jsonl")
    held_out = {row["name"] for row in documents if row["split"] == "valid"}
    trained = {row["name"] for row in documents if row["split"] == "train"}
    assert held_out and not held_out & trained
    questions = _read(output / "instructions.jsonl")
    asked = {"train": set(), "valid": set()}
    for row in questions:
        asked[row["split"]].add(row["messages"][0]["content"].split("`")[1])
    assert asked["valid"] <= held_out and asked["train"] <= trained
    answers = {row["messages"][1]["content"] for row in questions if row["split"] == "train"}
    for row in _described(output):
        assert row["messages"][0]["content"].split("`")[1] in held_out
        assert not answers & set(row["choices"])


def _described(output):
    return [row for row in _read(output / "choices.jsonl") if row["task"] == "describe"]


def test_the_exam_quotes_held_out_text_only(folder):
    output, _ = folder
    texts = {split: [] for split in ("train", "valid")}
    for row in _read(output / "documents.jsonl"):
        texts[row["split"]].append(" ".join(row["text"].split()))
    asked = [row for row in _read(output / "choices.jsonl") if row["task"] == "continue"]
    assert len(asked) >= 20
    for row in asked:
        whole = row["context"] + row["choices"][row["answer"]]
        assert any(whole in text for text in texts["valid"])
        assert not any(whole in text for text in texts["train"])


def test_wrong_orders_are_the_right_words(folder):
    output, _ = folder
    asked = [row for row in _read(output / "choices.jsonl") if row["task"] == "order"]
    assert len(asked) >= 20
    for row in asked:
        words = [sorted(choice.split()) for choice in row["choices"]]
        assert words.count(words[0]) == 4 and len(set(row["choices"])) == 4


def test_choices_hold_the_right_answer_once_among_four(folder):
    output, _ = folder
    right = {
        row["messages"][0]["content"]: row["messages"][1]["content"] for row in _read(output / "instructions.jsonl")
    }
    rows = _described(output)
    assert len(rows) >= 50
    for row in rows:
        assert len(set(row["choices"])) == 4
        assert row["choices"][row["answer"]] == right[row["messages"][0]["content"]]
    places = [row["answer"] for row in rows]
    assert all(places.count(place) > len(rows) / 8 for place in range(4))


def test_preference_sides_differ_and_are_of_like_length(folder):
    output, _ = folder
    rows = _read(output / "preferences.jsonl")
    assert all(row["chosen"] != row["rejected"] for row in rows)
    chosen, rejected = (sum(len(row[side]) for row in rows) for side in ("chosen", "rejected"))
    assert abs(chosen - rejected) < 0.02 * chosen


def test_max_bytes_limits_training_text_only(folder, tmp_path):
    output, _ = folder
    metrics = gather(["rich"], 0.05, 0, tmp_path, max_bytes=300_000)
    assert 290_000 < metrics["train_text_bytes"] <= 300_000
    valid = [row for row in _read(output / "documents.jsonl") if row["split"] == "valid"]
    assert [row for row in _read(tmp_path / "documents.jsonl") if row["split"] == "valid"] == valid


def test_documents_are_prose_without_markup(folder):
    output, _ = folder
    documents = _read(output / "documents.jsonl")
    text = "\n".join(row["text"] for row in documents)
    assert ":class:`" not in text and ".. versionadded::" not in text and ":func:`" not in text
    assert all(prose.is_english(row["text"].split("\n\n", 1)[1]) for row in documents)
    by_name = {row["name"]: row["text"] for row in documents}
    assert by_name["os.path.join"].startswith("os.path.join(a, *p)\n\nJoin two or more pathname components")
    assert by_name["str.join"].startswith("str.join\n\nConcatenate any number of strings.")


def test_docstrings_hung_on_c_objects_are_found():
    names = {item.name for item in docstrings.distribution("torch") if item.kind == "function"}
    assert {"torch.abs", "torch.nn.functional.linear"} <= names


def test_a_package_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(DataError, match="'no-such-thing' is not installed"):
        gather(["no-such-thing"], 0.05, 0, tmp_path)
