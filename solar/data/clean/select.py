"""The rows of a source that are used: those that pass all filters, or `max_samples` of them, drawn at random."""

import re
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from solar.config.splits import kind_of_split
from solar.data.clean.drops import Drops
from solar.data.order.permutation import Permutation
from solar.data.read.messages import BadRow, Located, Row

Filter = Callable[[Row], str | None]
"""Why a row is dropped, or None if it stays."""


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


def of_split(wanted: str, in_rows_alone: bool) -> Filter:
    """Drop rows whose column `split` names another split; validation rows stay where training rows are wanted.

    `in_rows_alone`: no file names a split, so a row without a split is a bad row if another split than train is wanted.

    >>> judge = of_split("train", in_rows_alone=True)
    >>> judge({"split": "valid"}), judge({"split": "test"}), judge({"split": "algebra"})
    (None, 'other_split', None)
    """
    kind = kind_of_split(wanted)

    def judge(row: Row) -> str | None:
        name = row.get("split")
        row_kind = kind_of_split(name) if isinstance(name, str) else None
        if row_kind is None and name != wanted:
            if in_rows_alone and kind != "train":
                raise BadRow("missing_field", f"no `split`, but `split: {wanted}` is asked for, and no file names it")
            return None
        fits = name == wanted or row_kind == kind or (kind == "train" and row_kind == "validation")
        return None if fits else "other_split"

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
