"""The documentation of the running Python as training text: documents, instructions, preference pairs, choices.

The hash of an object's summary decides its split, so that a held-out object occurs in no training file, not even under
another name. The same Python and packages give the same bytes.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solar.data.python_docs import docstrings, exam, prose
from solar.data.python_docs.docstrings import Documented
from solar.data.python_docs.exam import unit
from solar.errors import DataError

_MAX_CHARACTERS = 6_000
_MAX_SAME_SUMMARY = 2
_QUESTIONS = {
    "function": "What does `{}` do?|What does the function `{}` do?|Explain `{}` in one sentence.|What is `{}` for?",
    "method": "What does `{}` do?|What does the method `{}` do?|Explain `{}` in one sentence.|What is `{}` for?",
    "class": "What is `{}`?|What is the class `{}` for?|Describe `{}` in one sentence.|Explain `{}` in one sentence.",
    "module": "What is the module `{}` for?|What does `{}` provide?|Describe `{}` in one sentence.",
}


@dataclass(frozen=True)
class Entry:
    """A documented object with cleaned text."""

    name: str
    kind: str
    text: str
    summary: str | None
    split: str


def gather(
    packages: list[str],
    held_out_fraction: float,
    seed: int,
    output: Path,
    max_bytes: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `documents`, `instructions`, `preferences` and `choices` as JSONL into `output`; return their sizes."""
    entries = _limit(_entries(_sources(packages, progress), held_out_fraction, seed), max_bytes, seed)
    described = [entry for entry in entries if entry.summary is not None and entry.kind != "topic"]
    if len([entry for entry in described if entry.split == "valid"]) < 8:
        raise DataError(f"held_out_fraction: {held_out_fraction} leaves fewer than 8 objects to evaluate; raise it")
    files: dict[str, Iterable[dict[str, Any]]] = {
        "documents.jsonl": ({"text": e.text, "name": e.name, "split": e.split} for e in entries),
        "instructions.jsonl": _instructions(described, seed),
        "preferences.jsonl": _preferences(described, seed),
        "choices.jsonl": _choices([entry for entry in entries if entry.split == "valid"], seed),
    }
    metrics: dict[str, Any] = {}
    for file_name, rows in files.items():
        metrics[file_name.removesuffix(".jsonl")] = _write(output / file_name, rows)
    train_bytes = sum(len(entry.text.encode()) for entry in entries if entry.split == "train")
    return {"train_text_bytes": train_bytes, "files": metrics}


def _sources(packages: list[str], progress: Callable[[str], None]) -> Iterator[Documented]:
    progress("reading the language reference and the standard library")
    yield from docstrings.topics()
    yield from docstrings.builtins()
    yield from docstrings.standard_library()
    for package in packages:
        progress(f"reading {package}")
        yield from docstrings.distribution(package)


def _entries(objects: Iterable[Documented], held_out_fraction: float, seed: int) -> Iterator[Entry]:
    """Clean the docstrings, leave out repetitions and what is not English, and choose splits."""
    texts: set[bytes] = set()
    summaries: Counter[str] = Counter()
    names: set[str] = set()
    for item in objects:
        body = prose.clean(item.docstring)
        body = body[: body.rfind("\n\n", 0, _MAX_CHARACTERS)] if len(body) > _MAX_CHARACTERS else body
        if len(body) < 40 or not prose.is_english(body) or item.name in names:
            continue
        first = prose.summary(body)
        key = _shape(first or body[:80], item.name)
        digest = hashlib.sha256(_shape(body, item.name).encode()).digest()
        if digest in texts or summaries[key] >= _MAX_SAME_SUMMARY:
            continue
        texts.add(digest)
        summaries[key] += 1
        names.add(item.name)
        title = f"{item.name.rpartition('.')[0]}.{item.signature}".strip(".") if item.signature else item.name
        split = "valid" if unit(seed, "split", _words(first or body[:80])) < held_out_fraction else "train"
        yield Entry(item.name, item.kind, f"{title}\n\n{body}", first, split)


def _shape(text: str, name: str) -> str:
    """The words of a text without names of objects and numbers: equal for boilerplate.

    >>> _shape("Builds a BertModel of 12 layers.", "BertModel") == _shape("Builds a GptModel of 24 layers.", "GptModel")
    True
    """
    words = _words(re.sub(r"`[^`]*`|\b\w*[A-Z]\w*[A-Z]\w*\b|\d+", " ", text))
    own = {part.lower() for part in re.split(r"[._]", name)}
    return " ".join(word for word in words.split() if word not in own)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))


def _limit(entries: Iterable[Entry], max_bytes: int | None, seed: int) -> list[Entry]:
    """All held-out entries, and training entries, chosen by hash, up to `max_bytes`; in order of name."""
    kept, used = [], 0
    for entry in sorted(entries, key=lambda entry: unit(seed, "limit", entry.name)):
        size = len(entry.text.encode()) if entry.split == "train" else 0
        if max_bytes is None or used + size <= max_bytes:
            used += size
            kept.append(entry)
    return sorted(kept, key=lambda entry: (entry.kind != "topic", entry.name))


def _question(entry: Entry, seed: int) -> str:
    forms = _QUESTIONS[entry.kind].split("|")
    return forms[int(unit(seed, "question", entry.name) * len(forms))].format(entry.name)


def _instructions(entries: list[Entry], seed: int) -> Iterator[dict[str, Any]]:
    for entry in entries:
        turns = [("user", _question(entry, seed)), ("assistant", entry.summary)]
        yield {"messages": [{"role": role, "content": text} for role, text in turns], "split": entry.split}


def _with_wrong_summaries(entries: list[Entry], seed: int, count: int) -> Iterator[tuple[Entry, list[str]]]:
    """Each entry with `count` summaries of other entries of its split, of similar length and kind."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.split, "class" if entry.kind == "class" else "function"), []).append(entry)
    for group in groups.values():
        group.sort(key=lambda entry: (len(entry.summary or ""), entry.name))
        for place, entry in enumerate(group):
            near = [other for other in group[max(0, place - 12) : place + 13] if other.summary != entry.summary]
            near.sort(key=lambda other: unit(seed, entry.name, other.name))
            summaries = list(dict.fromkeys(other.summary or "" for other in near))[:count]
            if len(summaries) == count:
                yield entry, summaries


def _preferences(entries: list[Entry], seed: int) -> Iterator[dict[str, Any]]:
    for entry, (wrong,) in _with_wrong_summaries(entries, seed, 1):
        yield {"prompt": _question(entry, seed), "chosen": entry.summary, "rejected": wrong, "split": entry.split}


def _choices(entries: list[Entry], seed: int) -> Iterator[dict[str, Any]]:
    """The questions of the exam. `entries`: held-out objects; those without a summary only get `continue`."""
    texts = [(entry.name, entry.text) for entry in entries]
    summaries = [(entry.name, entry.summary) for entry in entries if entry.summary is not None]
    described = [entry for entry in entries if entry.summary is not None and entry.kind != "topic"]
    for entry, wrong in _with_wrong_summaries(described, seed, exam.CHOICES - 1):
        yield exam.describe(_question(entry, seed), entry.summary or "", wrong, seed)
    yield from exam.continuations(texts, seed)
    yield from exam.orders(summaries, seed)


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(content)
    lines = content.count(b"\n")
    return {"samples": lines, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
