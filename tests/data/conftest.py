"""Small real things that the tests of data share."""

import json
import os
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
from solar.data.encode import tokenizer
from solar.data.prepare import prepare

TEXT = Path(__file__).parents[3] / "shared/data/text"


def write_rows(path: Path, rows: list[Any]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_program(program: str, *arguments: str) -> str:
    """What a program in a process of its own prints; it may import this module."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def peak_mib() -> int:
    """Of this process alone: what `getrusage` tells begins with the peak of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


@pytest.fixture(scope="session")
def topics() -> list[str]:
    """The language reference: real English, in every Python."""
    return [text for _, text in sorted(pydoc_data.topics.topics.items())]


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, topics: list[str]) -> dict[str, Path]:
    """Artifacts of tokenizers with 600 tokens, by the template they carry."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "text").mkdir()
    write_rows(folder / "text/documents.jsonl", [{"text": text} for text in topics])
    for template in ("solar", "chatml", "llama3"):
        tokenizer.train(folder / "text", 600, template, folder / template / "tokenizer")
    return {template: folder / template for template in ("solar", "chatml", "llama3")}


@pytest.fixture(scope="session")
def gsm8k() -> Path:
    """Real questions and answers."""
    path = TEXT / "gsm8k_train.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture(scope="session")
def stories() -> Path:
    """A real small model, whose tokenizer puts a space before every text."""
    path = TEXT.parent / "stories260K"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture(scope="session")
def stories_tokenizer(stories: Path) -> Any:
    return tokenizer.load(stories)


@pytest.fixture
def prepared(tmp_path: Path, tokenizers: dict[str, Path]) -> Any:
    """A function that prepares rows (or a path) and returns the folder with its metrics."""
    numbers = iter(range(1000))

    def run(rows: Any = None, format: Format = Format.text, template: str = "solar", **changes: Any) -> SimpleNamespace:
        number = next(numbers)
        source = SourceConfig(format=format, keep=changes.pop("keep", {}))
        source.path = str(rows if isinstance(rows, Path) else write_rows(tmp_path / f"{number}.jsonl", rows or []))
        values: dict[str, Any] = {
            "sources": {"rows": source},
            "tokenizer": "tokenizer",
            "task": Task.pretrain,
            "sequence_length": 64,
            "packing": Packing.concatenate,
            "held_out_fraction": 0.0,
            "seed": 0,
        } | {key: value for key, value in changes.items() if key != "shard_tokens"}
        config = PrepareDataConfig(kind="prepare_data", **values)
        assert not list(config.problems())
        folder = tmp_path / f"tokens{number}"
        folder.mkdir()
        extra = {"shard_tokens": changes["shard_tokens"]} if "shard_tokens" in changes else {}
        metrics = prepare(config, {}, tokenizers[template], folder, **extra)
        return SimpleNamespace(folder=folder, metrics=metrics, tokenizer=tokenizer.load(tokenizers[template]))

    return run
