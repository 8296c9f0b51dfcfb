"""Rows made from tasks that are evaluated: FLAN gives each question its task, and the question is the join."""

import hashlib
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np

from solar.data.clean.select import Filter
from solar.data.read.messages import BadRow, Located, Row
from solar.errors import DataError

QUESTION, TASK = "inputs", "_task_name"
"""Columns of a task index."""


class TaskIndex:
    """The questions of some tasks, as hashes: eight bytes each."""

    def __init__(self, rows: Iterable[Located], tasks: Iterable[str]) -> None:
        """Raises `DataError` for a row without question or task, and if none of the tasks occurs."""
        wanted = set(tasks)
        self.counts: Counter[str] = Counter()
        """Task -> questions."""
        hashes = array("Q")
        for where, row in rows:
            if isinstance(row, BadRow) or TASK not in row or not isinstance(row.get(QUESTION), str):
                raise DataError(f"{where}: expected columns `{QUESTION}` and `{TASK}` in a task index")
            if row[TASK] in wanted:
                self.counts[row[TASK]] += 1
                hashes.append(_key(row[QUESTION]))
        if not hashes:
            names = ", ".join(sorted(wanted))
            raise DataError(f"drop_tasks: none of {names} is in the task index; check their spelling")
        if absent := sorted(wanted - set(self.counts)):
            warnings.warn(f"drop_tasks: the task index has no question of {', '.join(absent)}", stacklevel=2)
        self._hashes = np.unique(np.frombuffer(hashes, np.uint64))

    def holds(self, question: str) -> bool:
        """Whether one of the tasks asks this."""
        key = np.uint64(_key(question))
        place = int(np.searchsorted(self._hashes, key))
        return place < len(self._hashes) and bool(self._hashes[place] == key)

    def dropping(self, column: str) -> Filter:
        """A filter on the column that holds the question."""

        def judge(row: Row) -> str | None:
            question = row.get(column)
            if not isinstance(question, str):
                raise BadRow("missing_field", f"no text in `{column}`, which drop_tasks looks up")
            return "evaluation_task" if self.holds(question) else None

        return judge


def _key(question: str) -> int:
    digest = hashlib.blake2b(" ".join(question.split()).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
