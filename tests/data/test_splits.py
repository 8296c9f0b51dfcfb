"""One split of local data is read: the one that is asked for; several are never mixed."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from conftest import write_rows

from solar.config.data import Format, SourceConfig
from solar.config.source_files import source_files
from solar.data.read import sources
from solar.errors import DataError


def tables(folder: Path, *names: str) -> Path:
    """Parquet files of one row each, which holds the file's name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.Table.from_pylist([{"text": name}]), folder / name)
    return folder


def texts(path: Path, split: str = "train") -> list[str]:
    source = SourceConfig(path=str(path), format=Format.text, split=split)
    return [row["text"] for _, row in sources.rows(source)]


HUB = [f"data/{split}-0000{n}-of-00002.parquet" for split in ("train", "validation", "test") for n in range(2)]


@pytest.mark.parametrize(
    ("names", "split", "read"),
    [
        (HUB, "train", HUB[:2]),
        (HUB, "validation", HUB[2:4]),
        (HUB, "dev", HUB[2:4]),
        (HUB, "test", HUB[4:]),
        (["train.parquet", "dev.parquet"], "train", ["train.parquet"]),
        (["a_train.parquet", "b_train.parquet", "a_test.parquet"], "train", ["a_train.parquet", "b_train.parquet"]),
        (["train/0.parquet", "test/0.parquet"], "test", ["test/0.parquet"]),
        (["train1.parquet", "train2.parquet", "test1.parquet"], "train", ["train1.parquet", "train2.parquet"]),
        (["trainset.parquet", "testset.parquet"], "train", ["trainset.parquet"]),
        (["en/train/0.parquet", "en/eval/0.parquet"], "test", ["en/eval/0.parquet"]),
        (
            ["train_sft-00000-of-00001.parquet", "test_sft-00000-of-00001.parquet"],
            "train",
            ["train_sft-00000-of-00001.parquet"],
        ),
        (
            ["c4-train.00000-of-01024.parquet", "c4-validation.00000-of-00008.parquet"],
            "train",
            ["c4-train.00000-of-01024.parquet"],
        ),
        (
            ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"],
            "train",
            ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"],
        ),
        (["latest.parquet", "contested.parquet"], "train", ["contested.parquet", "latest.parquet"]),
    ],
)
def test_a_folder_gives_the_files_of_one_split(tmp_path, names, split, read):
    assert texts(tables(tmp_path / "test-set", *names), split) == read


@pytest.mark.parametrize(
    ("names", "split", "says"),
    [
        (["test.parquet"], "train", "has the splits test, but split is train; set split to one of them"),
        (["train.parquet", "test.parquet"], "validation", "has the splits test, train, but split is validation"),
        (
            ["train_sft-00000-of-00001.parquet", "train_gen-00000-of-00001.parquet"],
            "train",
            "has the splits train_gen, train_sft, but split is train",
        ),
        (
            ["more.parquet", "test.parquet"],
            "train",
            r"holds files of the split test, and more\.parquet, which names no split",
        ),
    ],
)
def test_a_folder_that_does_not_say_which_files_are_meant_is_refused(tmp_path, names, split, says):
    with pytest.raises(DataError, match=says):
        texts(tables(tmp_path / "data", *names), split)


def test_one_of_two_training_splits_is_read_by_its_whole_name(tmp_path):
    folder = tables(tmp_path, "train_sft-00000-of-00001.parquet", "train_gen-00000-of-00001.parquet")
    assert texts(folder, "train_gen") == ["train_gen-00000-of-00001.parquet"]


def test_files_that_are_named_themselves_are_read_whatever_their_split(tmp_path):
    folder = tables(tmp_path / "data", "train.parquet", "test-0.parquet", "test-1.parquet")
    assert texts(folder / "test-0.parquet") == ["test-0.parquet"]
    assert texts(folder / "test-*.parquet") == ["test-0.parquet", "test-1.parquet"]
    assert texts(folder / "*.parquet") == ["train.parquet"]
    with pytest.raises(DataError, match="has the splits test, but split is validation"):
        texts(folder / "test-0.parquet", "validation")


def test_a_pattern_over_folders_does_not_mix_them(tmp_path):
    tables(tmp_path, "train/0.parquet", "test/0.parquet")
    assert texts(tmp_path / "*" / "*.parquet") == ["train/0.parquet"]


def test_a_saved_dictionary_of_sets_has_its_splits_under_any_name(tmp_path):
    rows = {name: datasets.Dataset.from_list([{"text": f"{name} {n}"} for n in range(3)]) for name in ("train", "held")}
    datasets.DatasetDict(rows).save_to_disk(str(tmp_path / "saved"))
    assert texts(tmp_path / "saved") == ["train 0", "train 1", "train 2"]
    assert texts(tmp_path / "saved", "held") == ["held 0", "held 1", "held 2"]
    assert texts(tmp_path / "saved/held") == ["held 0", "held 1", "held 2"]


def test_of_a_saved_set_only_the_files_that_its_state_lists_are_read(tmp_path):
    rows = datasets.Dataset.from_list([{"text": f"row {n}"} for n in range(4)])
    rows.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    loaded.map(lambda row: {"text": row["text"].upper()})
    loaded.filter(lambda row: row["text"] != "row 1")
    assert list((tmp_path / "saved").glob("cache-*.arrow"))
    assert texts(tmp_path / "saved") == ["row 0", "row 1", "row 2", "row 3"]
    assert [file.name for file in source_files(tmp_path / "saved")] == [
        "data-00000-of-00002.arrow",
        "data-00001-of-00002.arrow",
    ]
    (tmp_path / "saved/data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"state\.json: lists data-00001-of-00002\.arrow, which is not there"):
        texts(tmp_path / "saved")


def test_rows_of_other_splits_are_left_out_and_counted(prepared):
    rows = [{"text": f"row {split} here", "split": split} for split in ("train", "valid", "dev", "test", "algebra")]
    found = prepared(rows)
    counts = {name: split["documents"] for name, split in found.metrics["splits"].items()}
    assert counts == {"train": 2, "valid": 2}  # `algebra` is no word for a split
    assert found.metrics["sources"]["rows"]["dropped"] == {"other_split": 1}


def test_rows_of_the_split_that_is_asked_for_are_the_training_rows(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"text": split, "split": split} for split in ("train", "test", "dev")])
    from solar.data.clean.drops import Drops
    from solar.data.clean.select import of_split, selected

    source = SourceConfig(path=str(path), format=Format.text, split="test")
    judge = of_split("test", in_rows_alone=not sources.files_name_splits(source))
    rows = selected(lambda: sources.rows(source), [judge], Drops(), lambda *_: None, None, 0)
    assert [row["text"] for _, row in rows] == ["test"]


def test_a_split_that_nothing_names_is_refused(prepared, tmp_path):
    path = write_rows(tmp_path / "data.jsonl", [{"text": "one"}])
    source = SourceConfig(path=str(path), format=Format.text, split="test")
    with pytest.raises(DataError, match=r"data\.jsonl:1: no `split`, but `split: test` is asked for"):
        prepared(sources={"rows": source})


def test_a_part_of_a_split_is_for_hubs_alone():
    source = SourceConfig(path="a.jsonl", format=Format.text, split="train[:10%]")
    assert list(source.problems()) == [
        "split: found 'train[:10%]', expected the name of a split; only a hub cuts parts out of one"
    ]


def test_arrow_files_of_both_kinds_are_read(tmp_path):
    table = pa.Table.from_pylist([{"text": "one"}, {"text": "two"}])
    pyarrow.feather.write_feather(table, str(tmp_path / "a.arrow"))
    assert texts(tmp_path / "a.arrow") == ["one", "two"]
    pyarrow.feather.write_feather(table, str(tmp_path / "b.arrow"), version=1)
    (_, row), *_ = sources.rows(SourceConfig(path=str(tmp_path / "b.arrow"), format=Format.text))
    assert "Feather of version 1" in str(row) and json.dumps(row.reason) == '"damaged_file"'
