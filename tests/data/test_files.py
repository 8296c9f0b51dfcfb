"""Files of every kind, and what each way of breaking a line leads to."""

import gzip
import io
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from conftest import run_program

from solar.config.data import Format, SourceConfig
from solar.data.read import sources, unpack
from solar.data.read.files import find, read
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow
from solar.errors import DataError

GOOD = b'{"text": "good"}'

LINES = [
    (b'{"text": "plain"}', "plain"),
    (b'{"text": "carriage return"}\r', "carriage return"),
    (b'  {"text": "spaces around"}  ', "spaces around"),
    (b'{"text": "other", "keys": [1, {"deep": null}]}', "other"),
    ('{"text": "naïve 日本 🙂"}'.encode(), "naïve 日本 🙂"),
    (b'{"text": "\\ud83d\\ude42"}', "🙂"),
    ('{"text": "line\u2028separator"}'.encode(), "line\u2028separator"),
    (b'{"text": "tab\\t and newline\\n"}', "tab\t and newline\n"),
    (b'{"text": "\xc2\x85"}x'[:-1].replace(b"\xc2\x85", b"a\xc2\x85b"), "a\x85b"),
    (b'{"text": "big int", "n": 123456789012345678901234567890}', "big int"),
    (b'{"text": "cut off', "invalid_json"),
    (b'{"text": "cut off"', "invalid_json"),
    (b'{"text": "two"} {"text": "objects"}', "invalid_json"),
    (b'{"text": "comma"},', "invalid_json"),
    (b"{'text': 'python'}", "invalid_json"),
    (b'{"text": "trailing comma",}', "invalid_json"),
    (b"not json", "invalid_json"),
    (b'{"text": "raw\x00nul"}', "invalid_json"),
    (b'{"text": "raw\x07bell"}', "invalid_json"),
    (b'{"text": "bad \\x escape"}', "invalid_json"),
    (b'{"text": "long int", "n": ' + b"9" * 5000 + b"}", "invalid_json"),
    (b'{"text": "escaped \\u0000 nul"}', "nul"),
    (b'{"text": "lone \\ud800 surrogate"}', "surrogate"),
    (b'{"text": "lone \\udc00 surrogate"}', "surrogate"),
    (b'{"text": "latin \xe9"}', "invalid_utf8"),
    (b'{"text": "half \xf0\x9f\x99"}', "invalid_utf8"),
    (b'{"text": "encoded surrogate \xed\xa0\x80"}', "invalid_utf8"),
    (b"\xff\xfe{\x00", "invalid_utf8"),
    (b'{"text": "x", "score": NaN}', "not_finite"),
    (b'{"text": "x", "score": Infinity}', "not_finite"),
    (b'{"text": "x", "score": -Infinity}', "not_finite"),
    (b'{"text": "x", "score": 1e400}', "not_finite"),
    (b"[" * 100_000, "too_deep"),
    (b'{"text": ' + b'{"a":' * 100_000, "too_deep"),
    (b'{"text": "a", "text": "b"}', "duplicate_key"),
    (b'["text"]', "wrong_type"),
    (b'"text"', "wrong_type"),
    (b"12", "wrong_type"),
    (b"null", "wrong_type"),
    (b'{"text": null}', "wrong_type"),
    (b'{"text": 12}', "wrong_type"),
    (b'{"text": ["a"]}', "wrong_type"),
    (b'{"text": {"a": "b"}}', "wrong_type"),
    (b'{"text": ""}', "empty"),
    (b'{"text": " \\n\\t "}', "empty"),
    (b'{"txt": "typo"}', "missing_field"),
    (b"{}", "missing_field"),
]


def _verdict(row) -> str:
    try:
        if isinstance(row, BadRow):
            raise row
        return Reader(Format.text, {}).document(row)
    except BadRow as error:
        return error.reason


@pytest.mark.parametrize(("line", "verdict"), LINES, ids=[str(number) for number in range(len(LINES))])
def test_each_kind_of_line_has_its_verdict_and_its_neighbours_are_read(tmp_path, line, verdict):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join([GOOD, line, GOOD]) + b"\n")
    found = list(read(file))
    assert [_verdict(row) for _, row in found] == ["good", verdict, "good"]
    assert [where for where, _ in found] == [f"{file}:{number}" for number in (1, 2, 3)]


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n\n   \n" + GOOD)
    assert [(where.rsplit(":")[-1], _verdict(row)) for where, row in read(file)] == [("1", "good"), ("5", "good")]


def test_a_huge_line_is_refused_without_being_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("solar.data.read.lines.MAX_LINE_BYTES", 1000)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + b'\n{"text": "' + b"a" * 5000 + b'"}\n' + GOOD + b"\n")
    assert [_verdict(row) for _, row in read(file)] == ["good", "too_long", "good"]


def _zst(content: bytes) -> bytes:
    return pyarrow.compress(content, "zstd", asbytes=True)


ROWS = [{"text": f"row {number}", "n": number} for number in range(3000)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", JSONL),
        ("rows.ndjson", JSONL),
        ("rows.json", JSONL),
        ("rows.json", json.dumps(ROWS, indent=1).encode()),
        ("rows.jsonl.gz", gzip.compress(JSONL)),
        ("rows.json.zst", _zst(JSONL)),
        ("rows.jsonl.zst", _zst(JSONL)),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert [row for _, row in read(tmp_path / name)] == ROWS


def test_parquet_gives_its_rows_and_their_numbers(tmp_path):
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file, row_group_size=700)
    found = list(read(file))
    assert [row for _, row in found] == ROWS and found[-1][0] == f"{file} row 3000"


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_a_compressed_file_that_was_cut_off_is_told_after_its_good_rows(tmp_path, name):
    content = gzip.compress(JSONL) if name.endswith("gz") else _zst(JSONL)
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    *good, (_, last) = read(tmp_path / name)
    assert _verdict(last) == "damaged_file" and [row for _, row in good] == ROWS[: len(good)]


def test_a_folder_that_datasets_saved_and_packed_parquet_give_the_same_rows(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    source = SourceConfig(path=str(tmp_path / "saved"), format=Format.text)
    assert [row for _, row in sources.rows(source)] == ROWS
    packed = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), packed)
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress(packed.getvalue()))
    assert [row for _, row in read(tmp_path / "rows.parquet.gz")] == ROWS


def test_separated_values_have_names_quotes_and_verdicts(tmp_path):
    content = '\ufeffprompt,completion\n"a, ""b""\nc",d\n\nonly\ne,f\n'
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(content.encode()))
    (tmp_path / "rows.tsv").write_text("prompt\tcompletion\nx\ty, z\n")
    where, rows = zip(*read(tmp_path / "rows.csv.gz"), strict=True)
    assert rows[0] == {"prompt": 'a, "b"\nc', "completion": "d"} and rows[2] == {"prompt": "e", "completion": "f"}
    assert _verdict(rows[1]) == "wrong_columns" and where[1].endswith("rows.csv.gz:5")
    assert [row for _, row in read(tmp_path / "rows.tsv")] == [{"prompt": "x", "completion": "y, z"}]
    (tmp_path / "bad.csv").write_bytes(b"a,b\n1,2\n\xff,3\n")
    assert _verdict(list(read(tmp_path / "bad.csv"))[-1][1]) == "damaged_file"


def test_a_parquet_file_that_is_none_is_told(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no")
    assert [_verdict(row) for _, row in read(tmp_path / "rows.parquet")] == ["damaged_file"]


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.jsonl.zst"])
def test_a_bomb_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(unpack, "ALWAYS_ALLOWED_BYTES", 2**20)
    content = GOOD + b"\n" + b" " * 2**26
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else _zst(content))
    with pytest.raises(DataError, match="unpacks to over 500 times its size"):
        list(read(tmp_path / name))


def test_plain_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path, topics):
    file = tmp_path / "book.txt"
    text = "\n\n\n".join(topic.strip().replace("\n\n\n", "\n") for topic in topics)
    file.write_text(text, encoding="utf-8")
    documents = [row["text"] for _, row in read(file)]
    assert len(documents) > 50 and all(len(document.encode()) >= 4000 for document in documents[:-1])
    assert "".join("".join(documents).split()) == "".join(text.split())
    starts = [int(where.rsplit(":", 1)[1]) for where, _ in read(file)]
    lines = text.split("\n")
    assert [lines[start - 1] for start in starts] == [document.split("\n")[0] for document in documents]


def test_folders_and_globs_are_read_in_order_of_name(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl.gz", "notes.cfg"):
        content = json.dumps({"text": name}).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert [file.name for file in find(tmp_path)] == ["a.jsonl", "b.jsonl", "c.jsonl.gz"]
    assert [file.name for file in find(tmp_path / "*.jsonl")] == ["a.jsonl", "b.jsonl"]
    source = SourceConfig(path=str(tmp_path), format=Format.text)
    assert [row["text"] for _, row in sources.rows(source)] == ["a.jsonl", "b.jsonl", "sub/c.jsonl.gz"]


def test_folders_behind_links_are_read_and_circles_are_no_trap(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("elsewhere/b.jsonl", "data/a.jsonl"):
        (tmp_path / name).write_text('{"text": "x"}')
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "data")
    assert [file.name for file in find(tmp_path / "data")] == ["a.jsonl", "b.jsonl"]


def test_of_a_folder_only_rows_are_read_that_are_not_hidden(tmp_path):
    """As a hub leaves it: a card, hidden caches, files about the files."""
    for name in (
        "data/a.jsonl",
        "data/.b.jsonl",
        ".cache/c.jsonl",
        "README.md",
        "dataset_info.json",
        "x.py",
        "B.JSONL",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "x"}')
    assert [file.relative_to(tmp_path).as_posix() for file in find(tmp_path)] == ["B.JSONL", "data/a.jsonl"]
    assert [file.name for file in find(tmp_path / "*")] == ["B.JSONL"]
    assert [file.name for file in find(tmp_path / "**/*.jsonl")] == ["a.jsonl"]
    assert [file.name for file in find(tmp_path / "dat**/a*")] == ["a.jsonl"]
    assert [file.name for file in find(tmp_path / "data/.b.jsonl")] == [".b.jsonl"]
    for name in ("data/a.jsonl", "B.JSONL"):
        (tmp_path / name).unlink()
    assert [file.name for file in find(tmp_path)] == ["README.md"]


def test_what_is_not_there_or_not_known_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing: no such file, expected a file, a folder or a glob"):
        find(tmp_path / "nothing")
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a.docx: unknown kind of file"):
        list(read(tmp_path / "a.docx"))


def test_an_unreachable_hub_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    source = SourceConfig(hub="no-such/thing", revision="0" * 40, format=Format.text)
    with pytest.raises(DataError, match=r"no-such/thing@0{40}: cannot be read from the hub \(.*\)$"):
        next(iter(sources.rows(source)))


def test_a_hub_is_streamed_at_its_pinned_commit(monkeypatch):
    """The hub is played by rows at hand; what it is asked for is what matters."""
    asked = {}

    def load_dataset(name, subset, **options):
        asked.update(options, name=name, subset=subset)
        return datasets.IterableDataset.from_generator(lambda: iter(ROWS[:3]))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    source = SourceConfig(hub="org/set", subset="small", split="test", revision="a" * 40, format=Format.text)
    assert list(sources.rows(source)) == [(f"org/set@{'a' * 40} test row {n + 1}", ROWS[n]) for n in range(3)]
    assert asked == {"name": "org/set", "subset": "small", "split": "test", "revision": "a" * 40, "streaming": True}


def test_a_value_that_python_cannot_hold_costs_its_row_alone(tmp_path):
    text = pyarrow.Array.from_buffers(
        pyarrow.string(),
        3,
        [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pyarrow.py_buffer(b"a\xffc")],
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "a.parquet")
    assert [_verdict(row) for _, row in read(tmp_path / "a.parquet")] == ["a", "unreadable_value", "c"]


def test_long_fields_of_separated_values_are_read_and_double_names_are_refused(tmp_path):
    (tmp_path / "long.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert [len(row["text"]) for _, row in read(tmp_path / "long.csv")] == [200_000]
    (tmp_path / "twice.csv").write_text("text,text\na,b\n")
    [(where, row)] = read(tmp_path / "twice.csv")
    assert where.endswith("twice.csv:1") and str(row) == "two columns are called 'text'"


def test_a_file_that_a_pattern_meets_twice_is_read_once(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c.jsonl").write_bytes(GOOD + b"\n")
    assert find(tmp_path / "**/**/*.jsonl") == [tmp_path / "a/b/c.jsonl"]


@pytest.mark.parametrize("name", ["rows.json.gz", "rows.json.zst", "rows.parquet.gz"])
def test_a_packed_array_or_table_that_is_damaged_is_one_bad_row(tmp_path, name):
    content = gzip.compress(JSONL) if name.endswith("gz") else _zst(JSONL)
    for damaged in (content[: len(content) // 2], b"no archive"):
        (tmp_path / name).write_bytes(damaged)
        *_, (where, last) = read(tmp_path / name)
        assert where.startswith(str(tmp_path / name)) and _verdict(last) == "damaged_file"


def test_a_table_that_repeats_a_large_value_is_read_in_bounded_memory(tmp_path):
    """A file of a few hundred bytes: 1,000 rows that all hold the same megabyte."""
    program = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet
from conftest import peak_mib
from solar.data.read import files
indices = pa.array([0] * 1000, pa.int32())
table = pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(["b" * 2**20]))})
pa.parquet.write_table(table, sys.argv[1], store_schema=False)
before = peak_mib()
rows = sum(len(row["text"]) == 2**20 for _, row in files.read(Path(sys.argv[1])))
print(rows, peak_mib() - before)
"""
    rows, growth_mib = map(int, run_program(program, str(tmp_path / "rows.parquet")).split())
    assert rows == 1000 and growth_mib < 250, growth_mib


def test_rows_of_megabytes_are_read_in_bounded_memory(tmp_path):
    """T-C2: 64 rows of 30 MB each, two gigabytes, in a file of some megabytes."""
    program = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet
from conftest import peak_mib
from solar.data.read import files
with pa.parquet.ParquetWriter(sys.argv[1], pa.schema({"text": pa.string()})) as table:
    for _ in range(4):
        table.write_table(pa.table({"text": pa.array(["b" * (30 * 2**20)] * 16)}))
"""
    measure = """
import sys
from pathlib import Path
from conftest import peak_mib
import pyarrow.parquet
from solar.data.read import files
before = peak_mib()
rows = sum(len(row["text"]) == 30 * 2**20 for _, row in files.read(Path(sys.argv[1])))
print(rows, peak_mib() - before)
"""
    path = tmp_path / "rows.parquet"
    run_program(program, str(path))
    assert path.stat().st_size < 8 * 2**20
    rows, growth_mib = map(int, run_program(measure, str(path)).split())
    assert rows == 64 and growth_mib < 700, growth_mib


def test_a_column_that_unpacks_to_far_more_than_is_stored_is_refused(tmp_path, monkeypatch):
    """T-C2."""
    monkeypatch.setattr("solar.data.read.tables.ALWAYS_ALLOWED_BYTES", 1000)
    table = pyarrow.table({"text": ["a" * 2**20]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(
        DataError, match=r"rows\.parquet: column text unpacks to 1,04\d,\d+ bytes, over 500 times its size"
    ):
        list(read(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_row_of_too_many_values_is_refused_before_it_is_parsed(name, tmp_path, monkeypatch):
    """T-C2: lists take twenty times their length in memory."""
    monkeypatch.setattr("solar.data.read.json_rows.MAX_VALUES", 20)
    monkeypatch.setattr("solar.data.read.json_array._CHUNK_BYTES", 8)  # of an array, a chunk is parsed without counting
    text = b'{"text": [' + b",".join([b"[]"] * 100) + b"]}"
    (tmp_path / name).write_bytes(b"[" + text + b"]" if name == "rows.json" else text)
    ((_, row),) = read(tmp_path / name)
    assert _verdict(row) == "too_many_values"
    (tmp_path / name).write_bytes(
        b'[{"text": "' + b"a" * 100 + b'"}]' if name == "rows.json" else b'{"text": "aaaaaaaaaaaaaaa"}'
    )
    ((_, row),) = read(tmp_path / name)
    assert set(row["text"]) == {"a"}


def test_a_huge_row_of_a_table_is_one_bad_row(tmp_path, monkeypatch):
    monkeypatch.setattr("solar.data.read.tables.MAX_LINE_BYTES", 1000)
    texts = ["a", "b" * 2000, "c"]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "rows.parquet")
    first, (where, huge), last = read(tmp_path / "rows.parquet")
    assert (first[1], last[1]) == ({"text": "a"}, {"text": "c"})
    assert where.endswith("row 2") and _verdict(huge) == "too_long"
