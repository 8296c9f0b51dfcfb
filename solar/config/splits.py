"""Which split a file or a row belongs to, by the usual names of splits."""

import json
import re
from collections.abc import Mapping, Sequence
from glob import has_magic
from itertools import takewhile
from pathlib import Path

from solar.config.source_files import compression

_KIND_OF = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devset"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "testset", "evalset", "heldout", "holdout"), "test"),
}
"""Word -> the kind of split that it stands for: the words of `datasets`, and a few more that people use."""
_SHARD = re.compile(r"(.+?)[-_.]\d{5}-of-\d{5}")


def kind_of_split(name: str) -> str | None:
    """`train`, `validation` or `test`, if a word of the name stands for one of them.

    >>> kind_of_split("dev"), kind_of_split("test_sft"), kind_of_split("train2"), kind_of_split("latest")
    ('validation', 'test', 'train', None)
    """
    kinds = (_KIND_OF.get(word) for word in re.split(r"[^a-z]+", name.lower()))
    return next((kind for kind in kinds if kind), None)


def split_of_file(file: Path, root: Path) -> str | None:
    """The split that a file below `root` belongs to; None if neither its name nor its folders name one.

    A numbered shard (`train_sft-00000-of-00002`) has its split's name. Of other names, only the kind of split counts.

    >>> [split_of_file(Path(name), Path("a")) for name in ("a/gsm8k_test.jsonl", "a/dev/0.parquet", "a/b.csv")]
    ['test', 'validation', None]
    >>> split_of_file(Path("a/train_sft-00000-of-00002.parquet"), Path("a"))
    'train_sft'
    """
    below = list(takewhile(lambda folder: folder != root, file.parents)) if root in file.parents else []
    for folder in below:
        if folder.name in _saved_splits(folder.parent):
            return folder.name
    stem = (Path(file.stem) if compression(file) else file).stem.lower()
    shard = _SHARD.fullmatch(stem)
    if shard and kind_of_split(shard[1]):
        return _KIND_OF.get(shard[1], shard[1])
    if kind := kind_of_split(stem):
        return kind
    return next((_KIND_OF[folder.name.lower()] for folder in below if folder.name.lower() in _KIND_OF), None)


def is_split(name: str, wanted: str) -> bool:
    """Whether `name` is the wanted split's name, or another usual word for the same kind of split.

    >>> is_split("dev", "validation"), is_split("train_sft", "train_sft"), is_split("train_sft", "train")
    (True, True, False)
    """
    return name == wanted or (name in _KIND_OF and _KIND_OF[name] == _KIND_OF.get(wanted))


def files_of_split(files: Sequence[Path], path: Path, wanted: str) -> tuple[list[Path], str | None]:
    """The files at `path` of the wanted split, and an error message if they cannot be told from other files.

    If no file names a split, all files are the wanted split. If `path` is a file or a pattern whose files all belong to
    one split, that split is taken: `path: data/test-*.parquet` needs no `split: test`.
    """
    split_of = {file: split_of_file(file, named_folder(path)) for file in files}
    names = sorted({name for name in split_of.values() if name is not None})
    nameless = [file.name for file, name in split_of.items() if name is None]
    if not names or (wanted == "train" and len(names) == 1 and not nameless and not path.is_dir()):
        return list(files), None
    if nameless:
        return [], (
            f"{path}: holds files of the split {', '.join(names)}, and {nameless[0]}, which names no split; "
            "name the files of one split with a glob"
        )
    fitting = [name for name in names if is_split(name, wanted)]
    if not fitting and wanted in _KIND_OF:
        fitting = [name for name in names if kind_of_split(name) == _KIND_OF[wanted]]
    if len(fitting) != 1:
        return [], f"{path}: has the splits {', '.join(names)}, but split is {wanted}; set split to one of them"
    return [file for file, name in split_of.items() if name == fitting[0]], None


def named_folder(path: Path) -> Path:
    """The deepest folder of a path or pattern that holds no wildcard."""
    return next((folder for folder in (path, *path.parents) if not has_magic(str(folder))), path)


def _saved_splits(folder: Path) -> Sequence[str]:
    """The splits of the `DatasetDict` saved in a folder; empty if the folder holds no `DatasetDict`."""
    try:
        described = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    splits = described.get("splits") if isinstance(described, Mapping) else None
    return [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else ()
