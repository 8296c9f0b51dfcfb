"""Rows that are left out: a count for each reason, and examples for review."""

from collections import Counter
from collections.abc import Iterator

EXAMPLES = 20
_CHARACTERS = 300


class Drops:
    """The rows of one source that are left out."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[tuple[str, str]]] = {}

    def add(self, reason: str, where: str, detail: str = "") -> None:
        """Count one row; `where` is its file and line."""
        self.counts[reason] += 1
        if len(known := self._examples.setdefault(reason, [])) < EXAMPLES:
            known.append((where, detail[:_CHARACTERS]))

    def examples(self) -> Iterator[dict[str, str]]:
        """The first rows of each reason."""
        for reason, known in self._examples.items():
            for where, detail in known:
                yield {"reason": reason, "where": where, "detail": detail}
