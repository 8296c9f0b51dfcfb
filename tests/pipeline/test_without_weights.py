"""`materialize: false`: the grown model is a plan, and everything after it comes out the same."""

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Run


def _artifact(root: Path, stage: str) -> Path:
    (found,) = (root / "artifacts").glob(f"{stage}-????????????")
    return found


@pytest.fixture(scope="module")
def planned(finished: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run whose growth kept no weights, from the same base as `finished`."""
    root = tmp_path_factory.mktemp("planned")
    for stage in ("docs", "tokenizer", "pretrain_data", "init", "base"):
        source = _artifact(finished, stage)
        shutil.copytree(source, root / "artifacts" / source.name)
    done = run(
        root, "stages.upscale.materialize=false", "stages.evaluation.models=[upscale,pretrain]", "until=evaluation"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def test_training_ends_with_the_same_bytes(finished: Path, planned: Path) -> None:
    written, kept = (_artifact(root, "pretrain") / "model" for root in (finished, planned))
    assert sorted(path.name for path in written.iterdir()) == sorted(path.name for path in kept.iterdir())
    for path in written.iterdir():
        assert path.read_bytes() == (kept / path.name).read_bytes(), path.name


def test_the_growth_takes_no_disk_and_says_what_it_depends_on(planned: Path) -> None:
    folder, base = _artifact(planned, "upscale"), _artifact(planned, "base")
    assert not list(folder.rglob("*.safetensors"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["metrics"]["weights_built_from"] == base.name
    assert manifest["metrics"]["layers"] == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]


def test_training_leaves_the_files_of_the_base_as_they_were(finished: Path, planned: Path) -> None:
    """T-E10."""
    written, kept = (_artifact(root, "base") / "model" / "model.safetensors" for root in (finished, planned))
    assert written.read_bytes() == kept.read_bytes()


def test_evaluation_scores_it_as_if_it_were_written(finished: Path, planned: Path) -> None:
    for stage in ("upscale", "pretrain"):
        rows = (json.loads((_artifact(root, "evaluation") / "scores.json").read_text()) for root in (finished, planned))
        written, kept = (next(row for row in of if row["stage"] == stage) for of in rows)
        assert written["nats_per_token"] == kept["nats_per_token"]


def test_a_missing_base_is_one_line(planned: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(planned / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(_artifact(tmp_path, "pretrain"))
    (_artifact(tmp_path, "base") / "model" / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    done = run(tmp_path, "stages.upscale.materialize=false", "until=pretrain")
    assert done.returncode == 1 and "model.safetensors: is missing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_stage_that_needs_the_files_is_refused_before_anything_runs(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path, "stages.upscale.materialize=false", "stages.merge.models=[upscale,pretrain]", "dry_run=true")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: stages.merge.models.0: 'upscale' keeps no weights, but merge reads their files; "
        "set stages.upscale.materialize to true"
    )


def test_sharded_training_of_a_plan_is_refused_before_anything_runs(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path, "stages.upscale.materialize=false", "trainer.strategy=fsdp", "dry_run=true")
    assert done.returncode == 1
    assert (
        "stages.pretrain.model: 'upscale' keeps no weights, but trainer.strategy fsdp reads their files" in done.stderr
    )
