"""Data sets on a hub: the libraries' own way, against a server in another process that speaks its protocol."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

COMMIT, OTHER = "a" * 40, "b" * 40
READ = """
import json, sys
from solar.config.data import SourceConfig
from solar.data.read import sources
from solar.errors import DataError
try:
    print(json.dumps(list(sources.rows(SourceConfig(**json.loads(sys.argv[1]))))))
except DataError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def read(tmp_path):
    """A function that reads a source in a process whose hub is a folder here."""
    for commit, word in ((COMMIT, "pinned"), (OTHER, "moved")):
        top = tmp_path / "hub/org/set" / commit
        (top / "data").mkdir(parents=True)
        for split, count in (("train", 5), ("test", 2)):
            rows = [{"text": f"{word} {split} {number}"} for number in range(count)]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), top / f"data/{split}-00000-of-00001.parquet")
        (top / "README.md").write_text("A card.")
    small = tmp_path / "hub/org/configs" / COMMIT
    (small / "en").mkdir(parents=True)
    (small / "en/train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    card = {"configs": [{"config_name": "en", "data_files": [{"split": "train", "path": "en/train.jsonl"}]}]}
    (small / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    gated = tmp_path / "hub/org/gated" / COMMIT
    gated.mkdir(parents=True)
    (gated / "GATED").touch()
    program = [
        sys.executable,
        str(Path(__file__).with_name("fake_hub.py")),
        str(tmp_path / "hub"),
        str(tmp_path / "log"),
    ]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{port}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }

        def run(**source):
            command = [sys.executable, "-c", READ, json.dumps({"format": "text", **source})]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout.splitlines()[-1])

        yield run
        server.terminate()


def test_a_split_is_streamed_at_its_pinned_commit(read):
    found = read(hub="org/set", revision=COMMIT, split="test")
    assert found == [[f"org/set@{COMMIT} test row {n + 1}", {"text": f"pinned test {n}"}] for n in range(2)]
    assert [row["text"] for _, row in read(hub="org/set", revision=OTHER)] == [f"moved train {n}" for n in range(5)]


def test_a_subset_is_what_the_card_calls_so(read):
    assert [row["text"] for _, row in read(hub="org/configs", subset="en", revision=COMMIT)] == ["one", "two"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"hub": "org/none", "revision": COMMIT}, "org/none"),
        ({"hub": "org/set", "revision": "c" * 40}, "c" * 40),
        ({"hub": "org/set", "revision": COMMIT, "split": "dev"}, "dev"),
        ({"hub": "org/configs", "revision": COMMIT, "subset": "fr"}, "fr"),
        ({"hub": "org/gated", "revision": COMMIT}, "gated"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_name(read, source, told):
    found = read(**source)
    assert isinstance(found, str) and "cannot be read from the hub" in found and told in found and "\n" not in found
