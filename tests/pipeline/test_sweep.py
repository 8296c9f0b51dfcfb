"""A sweep over m ends with one plot."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from .conftest import Run


def test_a_sweep_over_m_leaves_one_plot_of_all_its_jobs(finished: Path, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    done = run(root, "--multirun", "stages.upscale.m=1,2", "until=pretrain")
    assert done.returncode == 0, done.stdout + done.stderr
    (sweep,) = (root / "sweeps" / "quickstart").iterdir()
    assert f"sweep   {sweep / 'm.png'}" in done.stdout
    rows = json.loads((sweep / "m.json").read_text())
    assert [(row["stages.upscale.m"], row["layers"]) for row in rows] == [(1, 14), (2, 12)]
    log = (root / "artifacts" / rows[1]["trained"] / "logs" / "metrics.jsonl").read_text().splitlines()
    held_out = [line["valid_loss"] for line in map(json.loads, log) if "valid_loss" in line]
    assert (rows[1]["step0_loss"], rows[1]["trained_loss"]) == (held_out[0], held_out[-1])
    before = (sweep / "m.json").read_text()
    (sweep / "m.json").unlink()
    again = subprocess.run([sys.executable, "-m", "solar.sweep", str(sweep)], capture_output=True, text=True)
    assert again.stdout.strip() == str(sweep / "m.png")
    assert (sweep / "m.json").read_text() == before
    lost = subprocess.run([sys.executable, "-m", "solar.sweep", str(tmp_path)], capture_output=True, text=True)
    assert lost.returncode == 1 and lost.stderr.startswith(f"error: {tmp_path}: no finished job found")


def test_a_sweep_with_an_objective_lists_what_every_job_came_to(finished: Path, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    done = run(root, "--multirun", "+sweep=merge_weights", "until=evaluation")
    assert done.returncode == 0, done.stdout + done.stderr
    (sweep,) = (root / "sweeps" / "quickstart").iterdir()
    expected = []
    for job in range(3):
        record = json.loads((sweep / str(job) / "job.json").read_text())
        weights = record["overrides"]["stages.merge.weights"]
        folder = sweep / str(job) / record["artifacts"]["evaluation"]
        metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
        assert list(metrics) == ["merge"]  # no other model is scored again
        loss = metrics["merge"]["nats_per_token"]
        assert record["objective"] == {"evaluation.merge.nats_per_token": loss}
        expected.append(f"sweep   weights={weights}  evaluation.merge.nats_per_token {loss:.4f}")
    assert [line for line in done.stdout.splitlines() if line.startswith("sweep ")][-3:] == expected
    assert [line.partition("=")[2][:9] for line in expected] == ["[0.5,0.5]", "[0.4,0.6]", "[0.6,0.4]"]
