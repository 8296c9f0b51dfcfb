"""Real processes, real data on disk, real signals: whatever hits a training, the same bytes come out in the end."""

import hashlib
import itertools
import json
import os
import pydoc_data.topics
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import Place, llama_folder

from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
from solar.config.preference import ReferenceLogpsConfig
from solar.config.training import Precision
from solar.data.encode import tokenizer
from solar.data.prepare import prepare
from solar.training.checkpoint.points import newest_whole
from solar.training.preference.reference_pass import reference_pass

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
KINDS = ("cpt", "sft", "sft-packed", "dpo", "dpo-read")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base and, for each kind, tokens made from the language reference; for `dpo-read`, the pass that it reads."""
    place = tmp_path_factory.mktemp("killed")
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    (place / "text").mkdir()
    _write(place / "text/rows.jsonl", [{"text": text} for text in texts])
    tokenizer.train(place / "text", 600, "solar", place / "tokenizer/tokenizer")
    chats = [
        {"messages": [{"role": "user", "content": one[:40]}, {"role": "assistant", "content": one[40:160]}]}
        for one in texts
    ]
    _write(place / "chats.jsonl", chats)
    pairs = [
        {"prompt": one[:60], "chosen": one[60:160], "rejected": two[60:160]} for one, two in itertools.pairwise(texts)
    ]
    _write(place / "pairs.jsonl", pairs)
    fields = {
        "cpt": (place / "text/rows.jsonl", Format.text, Task.pretrain, Packing.concatenate),
        "sft": (place / "chats.jsonl", Format.messages, Task.instruct, Packing.none),
        "sft-packed": (place / "chats.jsonl", Format.messages, Task.instruct, Packing.best_fit),
        "dpo": (place / "pairs.jsonl", Format.preference, Task.preference, Packing.none),
    }
    for name, (path, format, task, packing) in fields.items():
        source = SourceConfig(format=format)
        source.path = str(path)
        values = {"tokenizer": "t", "task": task, "sequence_length": 64, "packing": packing, "seed": 0}
        config = PrepareDataConfig(kind="prepare_data", sources={"x": source}, held_out_fraction=0.05, **values)
        (place / name).mkdir()
        prepare(config, {}, place / "tokenizer", place / name)
    base = llama_folder(place / "base", vocab_size=600, attention_dropout=0.1)
    shutil.copy(place / "tokenizer/tokenizer/tokenizer.json", base)
    config = ReferenceLogpsConfig(kind="reference_logps", model="base", data="dpo", precision=Precision.fp32)
    reference_pass(config, base, place / "dpo", place / "logps", Place(place).trainer, 4)
    return place


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _start(kind, folder, output, seconds, workers=0):
    paths = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, str(HERE / "child.py"), kind, str(folder), str(output), str(seconds), str(workers)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _results(output):
    lines = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    weights = hashlib.sha256((output / "model/model.safetensors").read_bytes()).hexdigest()
    return weights, [{n: v for n, v in line.items() if n != "tokens_per_second"} for line in lines]


@pytest.fixture(scope="module")
def expected(folder):
    """What an undisturbed training of each kind leaves."""
    actual = {}
    for kind in KINDS:
        process = _start(kind, folder, folder / f"{kind}-expected", 1e9)
        assert process.wait(200) == 0, process.stderr.read()[-2000:]
        actual[kind] = _results(folder / f"{kind}-expected")
    return actual


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_training_that_is_hit_again_and_again_ends_with_the_same_bytes(folder, expected, kind, number):
    """T-A1, T-A7."""
    output, moments = folder / f"{kind}-{number.name}", random.Random(number)
    for hits in range(1, 4):
        seconds, workers = (0.0, 2) if number is signal.SIGKILL else (1e9, 0)
        process = _start(kind, folder, output, seconds, workers)
        process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.5))
        sent = time.monotonic()
        process.send_signal(number)
        code = process.wait(60)
        if code == 0 or (output / "model").exists():
            break  # too late: all was done
        assert code == (-signal.SIGKILL if number is signal.SIGKILL else 75), process.stderr.read()[-2000:]
        assert time.monotonic() - sent < 30
        checkpoints = output / "checkpoints"
        if number is not signal.SIGKILL and any(checkpoints.glob("step-*")):
            assert newest_whole(checkpoints)[1] == []
        if hits == 3:
            process = _start(kind, folder, output, 1e9)
            assert process.wait(200) == 0, process.stderr.read()[-2000:]
    assert (output / "model").exists() and _results(output) == expected[kind]
