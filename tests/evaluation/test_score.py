"""Each model has one row of scores."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from solar.config.evaluation import EvaluateConfig
from solar.errors import ArtifactError
from solar.evaluation.loading import load
from solar.evaluation.score import score

from .test_choices import QUESTIONS
from .test_perplexity import write_tokens


def test_a_row_holds_sizes_losses_accuracies_and_samples(stories, tmp_path):
    decoder, tokenizer = stories
    folder = Path(decoder.network.name_or_path)
    config = EvaluateConfig(kind="evaluate", models=["base"], data="docs", choices="docs")
    row = score(folder, config, write_tokens(tmp_path, tokenizer), QUESTIONS)
    assert (row["parameters"], row["layers"]) == (260_032, 5)
    assert 0 < row["nats_per_token"] < 4 and 0 < row["bits_per_byte"] < 8 and 0 <= row["choice_accuracy"] <= 1
    (sample,) = row["samples"]
    assert sample["prompt"] == "One day, a small dog went to the shop to b" and sample["text"].startswith("uy ")
    assert json.loads(json.dumps(row)) == row


def test_the_stage_leaves_a_row_for_each_model_in_order(stories, tmp_path):
    from solar.stages.evaluate import run

    folder = Path(stories[0].network.name_or_path)
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "model").symlink_to(folder)
    inputs = {name: SimpleNamespace(path=tmp_path / "stage") for name in ("base", "again")}
    inputs["docs"] = SimpleNamespace(path=write_tokens(tmp_path, stories[1]))
    config = EvaluateConfig(kind="evaluate", models=["base", "again"], data="docs")
    lines = []
    context = SimpleNamespace(trainer=SimpleNamespace(device_type="cpu"), progress=lines.append)
    metrics = run(config, inputs, tmp_path, context)
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert [row["stage"] for row in rows] == ["base", "again"]
    assert rows[0]["nats_per_token"] == rows[1]["nats_per_token"] == metrics["again"]["nats_per_token"]
    assert lines == ["base, model 1 of 2", "again, model 2 of 2"]


def test_a_folder_that_is_no_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(ArtifactError, match=r"config\.json: no such file"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ArtifactError, match=r"found neither model\.safetensors nor") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    code = "raise SystemExit('this code ran')"
    (tmp_path / "evil.py").write_text(code)
    (tmp_path / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoConfig": "evil.C"}}')
    with pytest.raises(ArtifactError, match="auto_map asks to run code"):
        load(tmp_path)
