"""What a training loads before its first step."""

import json
import subprocess
import sys

import pytest
import torch
from tiny import llama_folder, row, settings, train_rows

from solar.config.training import PretrainConfig

ASKED = (
    "import sys, solar.training.fit; print([n for n in ('matplotlib', 'scipy.signal', 'wandb') if n in sys.modules])"
)


@pytest.mark.slow
def test_training_loads_no_plotting_audio_or_tracker_packages():
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_what_trains_prints_nothing():
    """Also where torchao is installed, which transformers imports then."""
    done = subprocess.run(
        [sys.executable, "-c", "import solar.training.fit"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_recorded(tmp_path, threads):
    """T-G2."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        config = PretrainConfig(**settings(duration="1 steps"))
        metrics, _ = train_rows([row(9)] * 4, config, llama_folder(tmp_path / "base"), tmp_path / "out")
    finally:
        torch.set_num_threads(before)
    assert metrics["threads"] == threads


def test_metrics_come_in_the_order_of_the_log(tmp_path):
    """T-G1: and not in that of hashes, which differs in every process."""
    config = PretrainConfig(**settings(duration="1 steps"))
    metrics, _ = train_rows([row(9)] * 4, config, llama_folder(tmp_path / "base"), tmp_path / "out")
    logged = list(json.loads((tmp_path / "out/logs/metrics.jsonl").read_text().splitlines()[0]))
    lasts = [name.removesuffix("_last") for name in metrics if name.endswith("_last")]
    assert len(lasts) >= 1 and lasts == [name for name in logged if name in lasts]
