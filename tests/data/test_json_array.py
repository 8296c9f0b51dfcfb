"""A JSON array is read an item at a time, and refused where a reader of whole files refuses it."""

import json
from pathlib import Path

import pytest
from conftest import run_program

from solar.data.read import json_array as reader
from solar.data.read.json_array import json_array
from solar.data.read.messages import BadRow


def read(tmp_path: Path, text: str | bytes) -> list:
    """The items; of one that cannot be read, the reason."""
    path = tmp_path / "rows.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [row.reason if isinstance(row, BadRow) else row for _, row in json_array(path)]


@pytest.mark.parametrize("chunk", [1, 2, 7, 2**22])
def test_items_are_those_of_the_whole_text_wherever_the_chunks_end(tmp_path, chunk, monkeypatch) -> None:
    monkeypatch.setattr(reader, "_CHUNK_BYTES", chunk)
    rows = [{"text": 'a "quoted" ] , é 😀 \\', "n": -12.5e-3, "deep": [[{"x": None}]]}, {}, {"t": True}]
    for text in (json.dumps(rows), json.dumps(rows, ensure_ascii=False, indent=3), f"\ufeff \n{json.dumps(rows)}\n\t "):
        assert read(tmp_path, text) == rows
    assert read(tmp_path, "[]") == []


@pytest.mark.parametrize("chunk", [1, 5, 2**22])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"a": 1}, 2, {"b": 3}]', [{"a": 1}, "wrong_type", {"b": 3}]),
        ('[{"a": 1}, {"b": 2}', [{"a": 1}, {"b": 2}, "invalid_json"]),
        ('[{"a": 1}, {"b": "no end', [{"a": 1}, "invalid_json"]),
        ('[{"a": 1} {"b": 2}]', [{"a": 1}, "invalid_json"]),
        ('[{"a": 1},]', [{"a": 1}, "invalid_json"]),
        ('[{"a": 1}] {}', [{"a": 1}, "invalid_json"]),
        ('[{"a": 1, "a": 2}, {"b": 1}]', ["duplicate_key"]),
        ('[{"a": NaN}]', ["not_finite"]),
        ('[{"a": 1e999}]', ["not_finite"]),
        (b'[{"a": 1}, {"b": "\xff"}]', None),
        ("[" + "[" * 100_000 + "]" * 100_000 + "]", ["too_deep"]),
    ],
)
def test_what_is_no_array_of_objects_ends_in_one_bad_item(tmp_path, chunk, text, found, monkeypatch) -> None:
    """T-C1."""
    if len(text) > 10_000 and chunk == 1:
        pytest.skip("each chunk tries the text again")
    monkeypatch.setattr(reader, "_CHUNK_BYTES", chunk)
    rows = read(tmp_path, text)
    assert rows == found if found is not None else rows[-1] == "invalid_utf8"


def test_a_mistake_early_in_a_long_array_is_found_where_it_is(tmp_path) -> None:
    """Not after 64 MiB, as an item that is too long."""
    text = '[{"a": 1}, {"b" 2}, ' + ", ".join(['{"text": "' + "x" * 1000 + '"}'] * 20_000) + "]"
    assert read(tmp_path, text) == [{"a": 1}, "invalid_json"]


def test_an_item_of_too_many_values_is_refused_before_it_is_built(tmp_path) -> None:
    assert read(tmp_path, "[[" + "[]," * 6_000_000 + "[]]]") == ["too_many_values"]


MEMORY = """
import sys
from pathlib import Path
from conftest import peak_mib
from solar.data.read.json_array import json_array

row = '{"text": "' + "word " * 200 + '"}'
with open(sys.argv[1], "w") as file:
    file.write("[" + row)
    for _ in range(300_000):
        file.write(", " + row)
    file.write("]")
before = peak_mib()
print(sum(len(row) for _, row in json_array(Path(sys.argv[1]))), peak_mib() - before)
"""


def test_memory_does_not_grow_with_the_array(tmp_path) -> None:
    """T-C2: 300 MB of rows of 1 kB."""
    rows, mib = map(int, run_program(MEMORY, str(tmp_path / "large.json")).split())
    assert rows == 300_001
    assert mib < 100
