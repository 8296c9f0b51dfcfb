"""A quickstart small enough for a test: the same stages on a tenth of a megabyte of text, with tiny models."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = [
    "logger=none",
    "stages.docs.packages=[]",
    "stages.docs.max_bytes=100000",
    "stages.tokenizer.vocab_size=400",
    "stages.init.architecture.vocab_size=400",
    "stages.init.architecture.hidden_size=32",
    "stages.init.architecture.intermediate_size=64",
    "stages.init.architecture.num_attention_heads=2",
    "stages.init.architecture.num_key_value_heads=1",
    "stages.base.duration=150 steps",
    "stages.diagnosis.tokens=512",
    "stages.pretrain.duration=10 steps",
    "stages.sft.duration=5 steps",
    "stages.dpo_a.duration=3 steps",
    "stages.dpo_b.duration=3 steps",
    "stages.evaluation.max_tokens=1024",
    "stages.evaluation.max_choices=8",
    "trainer.threads=1",
]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(root: Path, *overrides: str) -> list[str]:
    """The command line of a tiny quickstart below `root`."""
    return [sys.executable, "-m", "solar.run", *TINY, f"paths.root={root}", *overrides]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a tiny quickstart to its end."""

    def _run(root: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command(root, *overrides), capture_output=True, text=True, timeout=3600)

    return _run


@pytest.fixture(scope="session")
def finished(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a whole tiny quickstart that has run."""
    root = tmp_path_factory.mktemp("finished")
    done = run(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root
