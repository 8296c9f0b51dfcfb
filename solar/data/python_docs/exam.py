"""Multiple-choice questions about held-out documentation: four choices, of which one is right.

`describe`: which summary belongs to a named object. `continue`: which words continue a text. `order`: which of four
orders of the same words is the original. Small models learn `order` first and `describe` last.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

CHOICES = 4
_BEGINNING_WORDS, _ENDING_WORDS = 24, 8


def unit(*parts: object) -> float:
    """A hash of the parts as a number of at least 0 and less than 1.

    >>> unit("a", 1) == unit("a", 1) != unit("a", 2)
    True
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def describe(question: str, right: str, wrong: Sequence[str], seed: int) -> dict[str, Any]:
    """A question about an object, with the right summary among wrong summaries."""
    messages = [{"role": "user", "content": question}]
    return {"task": "describe", "messages": messages, **_shuffled(right, wrong, (seed, "describe", question))}


def continuations(texts: Sequence[tuple[str, str]], seed: int) -> Iterator[dict[str, Any]]:
    """For each long enough text of (name, text): its next words, among those of the three texts after it."""
    parts = [(name, *_cut(text)) for name, text in texts if len(text.split()) >= _BEGINNING_WORDS + _ENDING_WORDS]
    for place, (name, beginning, ending) in enumerate(parts):
        others = [parts[(place + step) % len(parts)][2] for step in range(1, CHOICES)]
        if len({ending, *others}) == CHOICES:
            row = _shuffled(ending, others, (seed, "continue", name))
            yield {"task": "continue", "context": beginning + " ", **row}


def orders(texts: Sequence[tuple[str, str]], seed: int) -> Iterator[dict[str, Any]]:
    """For each (name, text): its first words in their order, and in three other orders."""
    for name, text in texts:
        words = text.split()[:_ENDING_WORDS]
        wrong = [" ".join(_reordered(words, seed, name, turn)) for turn in range(1, CHOICES)]
        if len(words) == _ENDING_WORDS == len(set(words)) and len({" ".join(words), *wrong}) == CHOICES:
            yield {"task": "order", "context": "", **_shuffled(" ".join(words), wrong, (seed, "order", name))}


def _reordered(words: list[str], *key: object) -> list[str]:
    """First and last word keep their places: a misplaced capital or full stop would give the answer away."""
    return [words[0], *sorted(words[1:-1], key=lambda word: unit(*key, word)), words[-1]]


def _cut(text: str) -> tuple[str, str]:
    words = text.split()[: _BEGINNING_WORDS + _ENDING_WORDS]
    return " ".join(words[:_BEGINNING_WORDS]), " ".join(words[_BEGINNING_WORDS:])


def _shuffled(right: str, wrong: Sequence[str], key: tuple[object, ...]) -> dict[str, Any]:
    answer = int(unit(*key) * CHOICES)
    return {"choices": [*wrong[:answer], right, *wrong[answer:]], "answer": answer}
