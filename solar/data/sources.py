"""A source of a mixture as a stream of rows: a stage's text, local files, or a hub data set at a pinned commit."""

import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np

from solar.config.data import SourceConfig
from solar.data import files
from solar.data.drops import Drops
from solar.data.files import Located
from solar.data.formats import BadRow, Row
from solar.data.order import Permutation
from solar.errors import DataError

Filter = Callable[[Row], str | None]
"""Why a row is dropped, or None if it stays."""


def rows(source: SourceConfig, stage_folder: Path | None = None) -> Iterator[Located]:
    """Every row of a source with its place; `stage_folder` is the artifact that `source.stage` names."""
    if source.hub is not None:
        return _hub(source, source.hub)
    if stage_folder is not None:
        path = stage_folder / source.file if source.file else stage_folder
    else:
        path = Path(source.path or "")
    return (located for file in files.find(path) for located in files.read(file))


def _hub(source: SourceConfig, name: str) -> Iterator[Located]:
    """Rows as they come over the network; nothing is stored."""
    import datasets  # takes a second, and most runs have no source on a hub

    try:
        stream = datasets.load_dataset(
            name, source.subset, split=source.split, revision=source.revision, streaming=True
        )
        for number, row in enumerate(stream, 1):
            yield f"{name}@{source.revision} {source.split} row {number}", row
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name}@{source.revision}: cannot be read from the hub ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def keeping(patterns: dict[str, str]) -> Filter:
    """Drop rows of which a column does not match its regular expression from its start.

    >>> keeping({"type": "MATH_"})({"type": "GSM_Rephrased"})
    'not_kept'
    """
    compiled = {column: re.compile(pattern) for column, pattern in patterns.items()}

    def judge(row: Row) -> str | None:
        for column, pattern in compiled.items():
            if column not in row:
                raise BadRow("missing_field", f"no field `{column}`, which `keep` names")
            if not pattern.match(str(row[column])):
                return "not_kept"
        return None

    return judge


def selected(
    located: Callable[[], Iterator[Located]],
    filters: list[Filter],
    drops: Drops,
    bad: Callable[[str, BadRow], None],
    max_samples: int | None,
    seed: int,
) -> Iterator[tuple[str, Row]]:
    """The rows that pass all filters; `max_samples` of them at random, for which they are read twice."""
    chosen = None
    if max_samples is not None:
        total = sum(1 for _ in _passing(located(), filters, Drops(), lambda where, row: None))
        if total > max_samples:
            chosen = np.sort(Permutation(total, seed, "max_samples").take(0, max_samples)).tolist()
    numbers = count()
    wanted = iter(chosen or [])
    following = next(wanted, None)
    for where, row in _passing(located(), filters, drops, bad):
        number = next(numbers)
        if chosen is None or number == following:
            following = next(wanted, None)
            yield where, row
        else:
            drops.add("not_drawn", where)


def _passing(
    located: Iterator[Located], filters: list[Filter], drops: Drops, bad: Callable[[str, BadRow], None]
) -> Iterator[tuple[str, Row]]:
    for where, row in located:
        try:
            if isinstance(row, BadRow):
                raise row
            reason = next((found for judge in filters if (found := judge(row)) is not None), None)
        except BadRow as error:
            bad(where, error)
            continue
        if reason is None:
            yield where, row
        else:
            drops.add(reason, where)
