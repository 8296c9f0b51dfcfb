"""Evaluation sets, duplicates and evaluated tasks are kept out of training data, and counted."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
from conftest import run_program, write_rows

from solar.config.data import (
    DecontaminateConfig,
    Deduplicate,
    Format,
    Packing,
    PrepareDataConfig,
    SourceConfig,
    Task,
)
from solar.data.clean.duplicates import seen_before, shingles
from solar.data.clean.ngrams import NgramIndex
from solar.data.clean.tasks import TaskIndex
from solar.data.store.dataset import TokenDataset
from solar.errors import DataError
from solar.stages.prepare_data import run

EXAM = "the quick brown fox jumps over the lazy dog while seven wizards watch from the hill"


def _index(size: int = 13) -> NgramIndex:
    return NgramIndex([("exam", [EXAM])], size)


def test_thirteen_shared_words_are_an_overlap_and_twelve_are_none():
    words = EXAM.split()
    assert _index().overlap(" ".join(["start", *words[1:14], "end"])) == ("exam", " ".join(words[1:14]))
    assert _index().overlap(" ".join(["start", *words[1:13], "end"])) is None


def test_case_punctuation_and_line_breaks_hide_nothing():
    disguised = EXAM.upper().replace(" ", ",\n ")
    assert _index().overlap(f"Read this: {disguised}!") is not None


def test_words_in_another_order_are_no_overlap():
    assert _index().overlap(" ".join(reversed(EXAM.split()))) is None


def test_short_evaluation_texts_count_whole_from_eight_words_and_shorter_ones_are_told():
    capital = "what is the capital of the old kingdom"
    index = NgramIndex([("exam", [capital, "its capital"]), ("exam", ["too short to count"])], 13)
    assert index.facts() == {"exam": {"rows": 2, "too_short": 1}} and len(index) == 1
    assert index.overlap("He asked: what is the capital of the old kingdom?") is not None
    assert index.overlap("what is the capital of the new kingdom then") is None


def test_the_overlapped_set_is_named():
    index = NgramIndex([("first", [EXAM]), ("second", [EXAM.replace("quick", "slow")])], 8)
    assert index.overlap("a slow brown fox jumps over the lazy dog while")[0] in ("first", "second")
    assert index.overlap("the slow brown fox jumps over the lazy")[0] == "second"


def test_real_evaluation_questions_are_found_in_a_corpus_and_nothing_else_is(gsm8k, topics):
    """T-C9."""
    questions = [json.loads(line)["question"] for line in gsm8k.read_text(encoding="utf-8").splitlines()[:500]]
    index = NgramIndex((("gsm8k", [question]) for question in questions), 13)
    assert not [topic for topic in topics if index.overlap(topic)]
    planted = [f"{topics[n % len(topics)][:500]}\n\n{question}" for n, question in enumerate(questions)]
    found = sum(index.overlap(text) is not None for text in planted)
    assert found == len(questions) - index.facts()["gsm8k"]["too_short"]


def test_exact_duplicates_but_for_space_and_case():
    seen = seen_before(Deduplicate.exact)
    assert [seen(text) for text in ("A b", "a  B\n", "a c", "A b")] == [False, True, False, True]
    assert seen_before(Deduplicate.none) is None


def test_near_duplicates_are_found_and_like_texts_are_kept(topics):
    pytest.importorskip("rensa", reason="extra `dedup` is not installed")
    seen = seen_before(Deduplicate.minhash)
    long = [topic for topic in topics if len(topic) > 3000]
    assert not any(seen(text) for text in long)
    changed = [text[:1000] + " changed " + text[1000:] for text in long]
    similarity = [_jaccard(text, other) for text, other in zip(long, changed, strict=True)]
    assert min(similarity) > 0.9
    assert all(seen(text) for text in changed)
    half = [text[: len(text) // 2] + text[len(text) // 2 :][::-1] for text in long]
    assert max(_jaccard(text, other) for text, other in zip(long, half, strict=True)) < 0.6
    assert not any(seen(text) for text in half)


def test_whatever_has_an_estimated_similarity_above_the_threshold_is_found():
    rensa = pytest.importorskip("rensa", reason="extra `dedup` is not installed")
    seen = seen_before(Deduplicate.minhash)

    def sketch(text):
        made = rensa.RMinHash(128, 0)
        made.update(shingles(text))
        return made

    similar = found = 0
    for pair in range(100):  # 200 runs of five words each, 185 of them in both: a similarity of 185 / 215 = 0.86
        words = [f"p{pair}w{place}" for place in range(204)]
        first, second = " ".join(words), " ".join([*words[:189], *(f"other{pair}w{place}" for place in range(15))])
        assert _jaccard(first, second) == pytest.approx(185 / 215)
        close = sketch(first).jaccard(sketch(second)) > 0.8
        similar += close
        assert not seen(first)
        found += seen(second) and close
    assert found == similar > 90


def _jaccard(first: str, second: str) -> float:
    one, other = set(shingles(first)), set(shingles(second))
    return len(one & other) / len(one | other)


def test_without_the_library_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(DataError, match=r"minhash needs rensa; `pip install 'solar\[dedup\]'`, or choose exact"):
        seen_before(Deduplicate.minhash)


FLAN = [
    {"inputs": "Which  gas do plants\nbreathe?", "_task_name": "ai2_arc/ARC-Easy:1.0.0"},
    {"inputs": "Add 2 and 2.", "_task_name": "cot_gsm8k"},
    {"inputs": "Translate this.", "_task_name": "wmt16"},
]
ORCA = [
    {"id": "flan.1", "system_prompt": "", "question": "Which gas do plants breathe?", "response": "Carbon dioxide."},
    {"id": "cot.2", "system_prompt": "Think.", "question": "Add 2 and 2.", "response": "4"},
    {"id": "flan.3", "system_prompt": "", "question": "Translate this.", "response": "Ceci."},
]


def test_questions_of_evaluated_tasks_are_dropped_by_the_join_with_flan(prepared, tmp_path):
    index = write_rows(tmp_path / "flan.jsonl", FLAN)
    source = SourceConfig(
        path=str(write_rows(tmp_path / "orca.jsonl", ORCA)),
        format=Format.open_orca,
        drop_tasks=["ai2_arc/ARC-Easy:1.0.0", "cot_gsm8k", "hellaswag:1.1.0"],
        task_index_path=str(index),
    )
    found = prepared(sources={"orca": source}, task=Task.instruct)
    assert found.metrics["sources"]["orca"]["dropped"] == {"evaluation_task": 2}
    data = TokenDataset(found.folder, "train")
    assert "Ceci." in found.tokenizer.decode(data[0].input_ids) and data.split.samples == 1


def test_a_task_index_without_the_tasks_or_the_columns_is_refused(tmp_path):
    rows = [("flan:1", FLAN[0])]
    with pytest.raises(DataError, match="none of arc is in the task index; check their spelling"):
        TaskIndex(rows, ["arc"])
    with pytest.raises(DataError, match="flan:1: expected columns `inputs` and `_task_name`"):
        TaskIndex([("flan:1", {"inputs": "x"})], ["arc"])


def test_contaminated_and_repeated_samples_are_counted_and_kept_for_review(prepared, tmp_path):
    exam = write_rows(tmp_path / "exam.jsonl", [{"question": EXAM}])
    against = {"exam": SourceConfig(path=str(exam), format=Format.text, columns={"text": "question"})}
    rows = [{"text": "clean one"}, {"text": f"Leak: {EXAM}."}, {"text": "clean two"}, {"text": "Clean  one"}]
    found = prepared(rows, decontaminate=DecontaminateConfig(against), deduplicate=Deduplicate.exact)
    assert found.metrics["sources"]["rows"]["dropped"] == {"contaminated": 1, "duplicate": 1}
    examples = [json.loads(line) for line in (found.folder / "dropped.jsonl").read_text().splitlines()]
    assert examples[0]["where"].endswith(".jsonl:2") and examples[0]["detail"].startswith("shares with exam: the quick")


def test_the_stage_takes_evaluation_sets_from_stages_and_tells_shares_and_rates(tmp_path, tokenizers, topics):
    """T-C9."""
    for name, rows in {"exam": [{"text": topics[0]}], "corpus": [{"text": text} for text in topics[:12]]}.items():
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "rows.jsonl", rows)
    corpus = {"stage": "corpus", "file": "rows.jsonl", "format": Format.text}
    config = PrepareDataConfig(
        kind="prepare_data", tokenizer="tokenizer", task=Task.pretrain, sequence_length=64, held_out_fraction=0.0,
        packing=Packing.concatenate, seed=0,
        sources={"a": SourceConfig(**corpus, weight=3.0), "b": SourceConfig(**corpus, weight=1.0)},
        decontaminate=DecontaminateConfig({"exam": SourceConfig(**corpus | {"stage": "exam"})}),
    )  # fmt: skip
    inputs = {name: SimpleNamespace(path=tmp_path / name) for name in ("exam", "corpus")}
    inputs["tokenizer"] = SimpleNamespace(path=tokenizers["solar"])
    (tmp_path / "out").mkdir()
    metrics = run(config, inputs, tmp_path / "out", SimpleNamespace(progress=print))
    assert metrics["sources"]["a"]["dropped"]["contaminated"] >= 1
    told = (
        r"% padding, 0 samples cut, (\d) of 24 rows left out \(\1 contaminated\); shares: a 7[45]\.\d+% of 75.00%, b 2"
    )
    assert re.search(told, metrics["summary"])


def test_an_evaluation_set_that_cannot_be_read_stops_the_run(prepared, tmp_path):
    exam = write_rows(tmp_path / "exam.jsonl", [{"questions": EXAM}])
    against = {"exam": SourceConfig(path=str(exam), format=Format.text)}
    with pytest.raises(DataError, match=r"decontaminate.against.exam: .*exam.jsonl:1: no field `text`"):
        prepared([{"text": "x"}], decontaminate=DecontaminateConfig(against))


@pytest.mark.slow
def test_a_million_documents_against_a_hundred_thousand_ngrams_take_bounded_memory():
    """In a process of its own: 100,000 runs of 13 words, then a stream of documents; the peak is read afterwards."""
    program = """
import random
from conftest import peak_mib
from solar.data.clean.ngrams import NgramIndex
random.seed(0)
words = [f"word{n}" for n in range(20000)]
text = lambda size: " ".join(random.choices(words, k=size))
index = NgramIndex((("exam", [text(112)]) for _ in range(1000)), 13)
assert len(index) == 100_000
base = [text(100) for _ in range(100)]
before = peak_mib()
hits = sum(index.overlap(f"{base[n % 100]} {n}") is not None for n in range(1_000_000))
print(hits, peak_mib() - before, peak_mib())
"""
    output = run_program(program)
    hits, growth_mib, peak_mib = map(int, output.split())
    assert hits == 0 and growth_mib < 100 and peak_mib < 500


@pytest.mark.parametrize(
    "hidden",
    [
        "the _quick_ brown fox jumps over the caf\u00e9 near stra\u00dfe twelve",
        "the quick brown fox jumps over the cafe\u0301 near STRASSE twelve",
        "the qu\u200bick bro\u00adwn fox jumps over the caf\u00e9 near stra\u00dfe twelve",
        "\uff34he quick brown fox jumps over the caf\u00e9 near stra\u00dfe twelve",
    ],
)
def test_emphasis_composed_letters_and_invisible_characters_hide_nothing(hidden):
    text = "the quick brown fox jumps over the caf\u00e9 near stra\u00dfe twelve"
    assert NgramIndex([("exam", [text])], 11).overlap(f"So: {hidden}!") is not None
    assert shingles(hidden) == shingles(text)


def test_scripts_without_spaces_are_compared_letter_by_letter():
    index = NgramIndex([("exam", ["一个篮子里有多少个红色的苹果"])], 13)
    assert index.overlap("请问一个篮子里有多少个红色的苹果?") is not None
    assert index.overlap("请问一个盒子里有多少个红色的苹果?") is None


def test_letters_that_grow_when_they_are_made_small_are_no_trouble():
    """Turkish dotted I becomes two characters, of which one is no letter."""
    words = "\u0130a \u0130b \u0130c \u0130d \u0130e \u0130f \u0130g \u0130h"
    assert NgramIndex([("exam", [words])], 8).overlap(f"x {words} y") is not None


def test_a_short_question_is_found_whatever_its_answer_says(prepared, tmp_path):
    question = "Which gas do plants mainly absorb from the air around them?"
    exam = write_rows(tmp_path / "exam.jsonl", [{"prompt": question, "completion": "Carbon dioxide"}])
    with exam.open("a") as file:
        file.write(json.dumps({"prompt": "Which one?", "completion": "Carbon dioxide"}) + "\n")
    against = {"exam": SourceConfig(path=str(exam), format=Format.prompt_completion)}
    rows = [{"text": f"{question} It is the one that we breathe out."}, {"text": "clean"}]
    found = prepared(rows, decontaminate=DecontaminateConfig(against))
    assert found.metrics["sources"]["rows"]["dropped"] == {"contaminated": 1}
    assert found.metrics["evaluation_sets"] == {"exam": {"rows": 2, "too_short": 1}}
