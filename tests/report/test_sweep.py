"""The plot of a sweep: numbers worked by hand from two small runs."""

import json
from pathlib import Path

import pytest

from solar.report.sweep import Job, table, write_sweep

from .run_on_disk import GROWN, RunOnDisk, curve, scored


def _job(root: Path, m: int, gap: float, *, evaluated: bool = False) -> Job:
    """Base at 3.0; the growth adds `gap`, of which training takes off 0.6."""
    made = RunOnDisk(root / str(m))
    made.root.mkdir()
    made.add("data", "prepare_data", tokens_json={})
    made.add("base", "pretrain", ("data",), model__config_json={}, logs__metrics_jsonl=curve(5.0, 3.0))
    made.add("upscale", "upscale", ("base",), model__config_json={"solar": GROWN})
    log = curve(3.0 + gap, 3.0 + gap - 0.6)
    trained = made.add("pretrain", "pretrain", ("upscale", "data"), model__config_json={}, logs__metrics_jsonl=log)
    trained.path.rename(trained.path.with_name(f"pretrain-{m}"))
    made.entries[-1] = type(trained)("pretrain", "pretrain", trained.path.with_name(f"pretrain-{m}"), trained.manifest)
    if evaluated:
        rows = [scored("base", 2.0, 0.5), scored("upscale", 2.0 + gap, 0.5), scored("pretrain", 1.5 + gap, 0.5)]
        made.add("evaluation", "evaluate", ("base", "upscale", "pretrain", "data"), scores_json=rows)
    return Job({"stages.upscale.m": str(m), "logger": "none"}, made.run)


def test_gap_and_what_training_makes_of_it_by_hand(tmp_path: Path) -> None:
    first, second = table([_job(tmp_path, 1, 0.5), _job(tmp_path, 2, 1.0)])
    assert [first["stages.upscale.m"], second["stages.upscale.m"]] == [1, 2]
    assert "logger" not in first
    assert first["step0_gap"] == pytest.approx(0.5) and first["trained_gap"] == pytest.approx(-0.1)
    assert second["step0_gap"] == pytest.approx(1.0) and second["trained_gap"] == pytest.approx(0.4)
    assert (first["train_tokens"], first["layers"], first["measured"]) == (1000, 12, "validation")


def test_an_evaluation_of_all_three_models_goes_first(tmp_path: Path) -> None:
    first, _ = table([_job(tmp_path, 1, 0.5, evaluated=True), _job(tmp_path, 2, 1.0, evaluated=True)])
    assert (first["base_loss"], first["measured"]) == (2.0, "evaluation")
    assert first["step0_gap"] == pytest.approx(0.5) and first["trained_gap"] == pytest.approx(0.0)


def test_files_are_named_by_what_was_swept(tmp_path: Path) -> None:
    picture = write_sweep([_job(tmp_path, 1, 0.5), _job(tmp_path, 2, 1.0)], tmp_path)
    assert picture == tmp_path / "m.png" and picture.read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "m.json").read_text())) == 2


def test_a_sweep_of_something_after_the_growth_draws_nothing(tmp_path: Path) -> None:
    job = _job(tmp_path, 1, 0.5)
    jobs = [Job({"stages.dpo_a.beta": beta}, job.run) for beta in ("0.1", "0.3")]
    assert write_sweep(jobs, tmp_path) is None
    assert not list(tmp_path.glob("*.png"))
