"""lm-evaluation-harness scores a loaded model offline, on tasks from a folder."""

import json
import sys

import pytest

from solar.config.evaluation import HarnessTaskConfig
from solar.errors import ConfigError, StageError
from solar.evaluation import harness
from solar.evaluation.choices import Question, accuracy

ROWS = [
    {"text": "Once upon a time, there was a little", "choices": ["girl", "of the"], "answer": 0},
    {"text": "She loved to play outside in the", "choices": ["big of", "park"], "answer": 1},
    {"text": "Tom had a big red", "choices": ["ly", "ball"], "answer": 0},
]


@pytest.fixture
def own_tasks(tmp_path):
    """Two tasks of three questions on disk, and a group of both."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = f"""\
dataset_path: json
dataset_kwargs:
  data_files: {{test: {tmp_path / "rows.jsonl"}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
    (tmp_path / "a.yaml").write_text("task: stories_a\n" + task)
    (tmp_path / "b.yaml").write_text("task: stories_b\n" + task)
    (tmp_path / "both.yaml").write_text("group: stories\ntask: [stories_a, stories_b]\n")
    return tmp_path


def test_scores_are_shares_by_name_and_their_mean(stories, own_tasks):
    pytest.importorskip("lm_eval.models.huggingface", reason="the extra eval is not installed")
    tasks = {"A": HarnessTaskConfig("stories_a", 0, "acc"), "Both": HarnessTaskConfig("stories", 1, "acc_norm,none")}
    decoder, tokenizer = stories
    scores = harness.harness_scores(decoder.network, tokenizer, tasks, own_tasks=own_tasks)
    questions = [Question(context=row["text"] + " ", choices=row["choices"], answer=row["answer"]) for row in ROWS]
    assert scores["harness"]["A"] == pytest.approx(accuracy(decoder, tokenizer, questions)["choice_accuracy"])
    assert scores["harness_mean"] == pytest.approx((scores["harness"]["A"] + scores["harness"]["Both"]) / 2)


def test_a_group_scores_the_plain_mean_of_its_leaves():
    task = HarnessTaskConfig("mmlu", 5, "acc")
    scores = {
        "group_subtasks": {"mmlu": ["stem", "law"], "stem": ["physics", "maths"]},
        "results": {
            "mmlu": {"acc,none": 0.99},
            "physics": {"acc,none": 0.25},
            "maths": {"acc,none": 0.5},
            "law": {"acc,none": 0.75},
        },
    }
    assert harness._score(scores, task, "MMLU") == pytest.approx(0.5)


def test_a_metric_that_is_not_measured_is_refused_with_those_that_are():
    scores = {"results": {"arc": {"alias": "arc", "acc,none": 0.1, "acc_norm,none": 0.2}}}
    with pytest.raises(ConfigError, match=r"harness\.ARC\.metric: f1 is not measured, expected one of acc,none, acc_n"):
        harness._score(scores, HarnessTaskConfig("arc", 0, "f1"), "ARC")


def test_an_unknown_task_is_refused_with_its_key(stories, own_tasks):
    pytest.importorskip("lm_eval.models.huggingface", reason="the extra eval is not installed")
    with pytest.raises(ConfigError, match=r"harness\.X\.task: nothing_such is no task"):
        harness.harness_scores(
            stories[0].network, stories[1], {"X": HarnessTaskConfig("nothing_such", 0, "acc")}, own_tasks=own_tasks
        )


def test_without_the_extra_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"pip install 'solar\[eval\]'"):
        harness.check_installed()


def test_the_harness_is_imported_only_where_it_is_used():
    import subprocess

    code = "import sys, solar.evaluation.harness as h; h.find_spec('lm_eval'); sys.exit('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
