"""A diagnosis selects the plan that a model grows by."""

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Run

BY_DIAGNOSIS = ["stages.upscale.diagnosis=diagnosis", "stages.upscale.plan=null", "stages.upscale.m=null"]
CANDIDATES = ["dus_m2", "dus_m1", "stack", "repeat_each", "interleave_zero"]


@pytest.mark.parametrize(
    ("measure", "column"), [("step0_loss", "step0_loss"), ("block_influence", "repeated_influence")]
)
def test_the_model_grows_by_the_plan_with_the_least_of_the_measure(
    finished: Path, run: Run, tmp_path: Path, measure: str, column: str
) -> None:
    shutil.copytree(finished / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(next(tmp_path.glob("artifacts/upscale-*")))
    done = run(tmp_path, *BY_DIAGNOSIS, f"stages.diagnosis.select={measure}", "until=upscale")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "grow by what diagnosis selects" in done.stdout
    diagnoses = [json.loads(path.read_text()) for path in tmp_path.glob("artifacts/diagnosis-*/diagnosis.json")]
    (diagnosis,) = (diagnosis for diagnosis in diagnoses if diagnosis["select"] == measure)
    least = min(diagnosis["plans"], key=lambda plan: plan[column])
    (grown,) = tmp_path.glob("artifacts/upscale-*/manifest.json")
    assert diagnosis["best"] == least["name"] and len(diagnosis["selected"]["layers"]) == least["layers"]
    assert json.loads(grown.read_text())["metrics"]["layers"] == diagnosis["selected"]["layers"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [f"~stages.diagnosis.plans.{name}" for name in CANDIDATES],
            "diagnosis: 'diagnosis' has no plans to select from",
        ),
        (["stages.upscale.init=zero_out"], "init: given beside diagnosis"),
        (["stages.diagnosis.plans.dus_m2.seam=rms_match"], "data: not set, but dus_m2 of 'diagnosis' measures on it"),
    ],
)
def test_what_a_diagnosis_cannot_select_for_is_refused_before_anything_runs(
    run: Run, tmp_path: Path, overrides: list[str], message: str
) -> None:
    done = run(tmp_path, *BY_DIAGNOSIS, *overrides, "dry_run=true")
    assert done.returncode == 1 and f"error: stages.upscale.{message}" in done.stderr
    assert not (tmp_path / "artifacts").exists()
