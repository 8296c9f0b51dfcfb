"""The most memory that a training holds, beside the bytes a weight from which the plan estimates it."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CASES = {"fp32": 16, "bf16_mixed": 16, "bf16_true": 8}
"""Precision -> bytes of weight, gradient and optimizer state of a weight."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_training_of_short_rows_peaks_a_little_above_weights_gradients_and_optimizer_state(case: str) -> None:
    """Nothing else is large here: activations of 200 tokens are a hundredth, an optimizer's scratch one matrix."""
    paths = os.pathsep.join([str(FOLDER.parents[1]), str(FOLDER)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environment)
    held, weights = map(int, done.stdout.splitlines()[-1].split())
    assert 1 < held / (CASES[case] * weights) < 1.5


def _train(precision: str) -> None:
    """Print the bytes held above the start at the peak, and the number of weights."""
    from tiny import llama_folder, row, settings, train_rows

    from solar.config.training import Precision, PretrainConfig

    sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 12}
    config = PretrainConfig(**settings(duration="3 steps", precision=Precision(precision)))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        folder = llama_folder(Path(name) / "base", **sizes, num_key_value_heads=12)
        start = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
        assert start is not None
        rows = [row(30, 20, seed=number, sample=number) for number in range(8)]
        metrics, module = train_rows(rows, config, folder, Path(name) / "out")
    weights = sum(parameter.numel() for parameter in module.network.parameters())
    print(int(metrics["peak_memory_bytes"]) - 1024 * int(start[1]), weights)


if __name__ == "__main__":
    _train(sys.argv[1])
