"""Prepared rows for the terminal: which tokens are trained, where documents begin, how much is padding."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from solar.data.encode.tokenizer import load
from solar.data.order.order import Order
from solar.data.prepare import DROPPED
from solar.data.store.dataset import IGNORED, Row, TokenDataset

TRAINED, CONTEXT = "bold green", "default"
_SHARES_ROWS = 100_000


def show(folder: Path, split: str, count: int, start: int, seed: int) -> Iterator[RenderableType]:
    """The counts of a split, `count` of its rows (train: in the order of training), and examples of rows left out."""
    data = TokenDataset(folder, split)
    tokenizer = load(folder)
    yield _facts(data, split)
    stop = min(start + count, len(data))
    numbers: Sequence[int] = range(start, stop)
    if split == "train":
        yield _sources(data, seed)
        numbers = Order.of(data, seed).rows(start, count).tolist()
    for number in numbers:
        yield Panel(_row(data[number], tokenizer, data.header.task), title=f"row {number}", title_align="left")
    dropped = folder / DROPPED
    if dropped.exists() and (lines := dropped.read_text(encoding="utf-8").splitlines()):
        yield _dropped([json.loads(line) for line in lines])


def _facts(data: TokenDataset, name: str) -> RenderableType:
    split, header = data.split, data.header
    table = Table.grid(padding=(0, 2))
    for fact, value in (
        ("task", f"{header.task}, {header.packing} rows of {header.sequence_length} tokens"),
        ("samples", f"{split.samples:,} in {split.rows:,} rows"),
        ("tokens", f"{split.tokens:,}"),
        ("trained", f"{split.trained_tokens / max(1, split.tokens):.1%} of them"),
        ("padding", f"{header.padding_share(name):.1%} of the places in the rows"),
    ):
        table.add_row(fact, value)
    return table


def _sources(data: TokenDataset, seed: int) -> RenderableType:
    table = Table("source", "rows", "tokens", "share asked for", "share in an epoch", box=None, padding=(0, 2, 0, 0))
    order = Order.of(data, seed)
    rows = min(order.rows_per_epoch, _SHARES_ROWS)
    requested, realised = order.requested_shares(rows), order.shares(0, rows)
    for name, place in data.split.sources.items():
        shares = f"{requested[name]:.2%}", f"{realised[name]:.2%}"
        table.add_row(name, f"{place.stop - place.start:,}", f"{place.tokens:,}", *shares)
    return table


def _row(row: Row, tokenizer: Any, task: str) -> RenderableType:
    parts: list[RenderableType] = []
    start = 0
    for number, (length, sample) in enumerate(zip(row.document_lengths, row.sample_ids, strict=True)):
        side = f", {('chosen', 'rejected')[number]}" if task == "preference" else ""
        parts.append(Text(f"sample {sample}{side}, {length} tokens", style="dim italic"))
        parts.append(_document(row, start, start + length, tokenizer, colour_all=task != "pretrain"))
        start += length
    return Group(*parts)


def _document(row: Row, start: int, stop: int, tokenizer: Any, colour_all: bool) -> Text:
    """The text of a document. Runs of trained tokens are decoded together: a character may take several tokens."""
    text = Text()
    run: list[int] = []
    style = CONTEXT
    for place in range(start, stop + 1):
        trained = place < stop and colour_all and row.labels[place] != IGNORED
        style_here = TRAINED if trained else CONTEXT
        if place == stop or style_here != style:
            text.append(_decoded(run, tokenizer), style=style)
            run, style = [], style_here
        if place < stop:
            run.append(int(row.input_ids[place]))
    return text


def _decoded(ids: list[int], tokenizer: Any) -> str:
    text: str = tokenizer.decode(ids)
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)


def _dropped(examples: list[dict[str, str]]) -> RenderableType:
    table = Table(
        "left out because", "where", "what", box=None, padding=(0, 2, 0, 0), title="examples of rows left out"
    )
    for example in examples[:12]:
        table.add_row(Text(example["reason"]), Text(example["where"]), Text(example["detail"][:80].replace("\n", " ")))
    return table
