"""Write recipes as safetensors files: a new header and copied byte ranges; files that equal the base's may be links."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from solar.growth.files.copying import BLOCK_BYTES, allocate, copy_range, expect_zeros, share_range, write
from solar.growth.files.recipes import Recipe
from solar.growth.files.shards import Shard
from solar.weights.folder import write_index
from solar.weights.header import METADATA, encode_header, header_entries


class Link(StrEnum):
    """Whether an output file that equals an input file is a second name of it."""

    auto = "auto"
    """A hard link where the file system allows; the two folders then share the file: never write into it."""
    never = "never"


@dataclass(frozen=True)
class Range:
    """Bytes of an output file, written and read back."""

    start: int
    nbytes: int
    source: Path | None
    """The file whose bytes they are; None where they were made for a tensor."""
    source_start: int = 0
    made: str = ""
    """That tensor's name."""


def write_shards(shards: list[Shard], folder: Path, link: Link, threads: int) -> dict[str, list[Range]]:
    """Write all files, several at a time, and an index where there are several.

    Returns, for each file, the ranges that were read back and what they equal.
    """
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        jobs = {shard.name: pool.submit(_write, shard, folder, link) for shard in shards}
        written = {name: job.result() for name, job in jobs.items()}
    if len(shards) > 1:
        file_of = {name: shard.name for shard in shards for name in shard.recipes}
        write_index(folder, file_of, sum(shard.nbytes for shard in shards))
    return written


def _write(shard: Shard, folder: Path, link: Link) -> list[Range]:
    if shard.whole is not None and link is Link.auto and _linked(shard.whole, folder / shard.name):
        return [Range(0, shard.whole.stat().st_size, shard.whole)]
    target = os.open(folder / shard.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return _copy_file(shard.whole, target) if shard.whole is not None else _write_tensors(shard, target)
    finally:
        os.close(target)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path.resolve(), target)
    except OSError:
        return False
    return True


def _copy_file(path: Path, target: int) -> list[Range]:
    source = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(source).st_size
        if not share_range(source, target, 0, 0, size):
            allocate(target, size)
            copy_range(source, target, 0, 0, size)
    finally:
        os.close(source)
    return [Range(0, size, path)]


def _write_tensors(shard: Shard, target: int) -> list[Range]:
    relative = list(_ranges(shard))
    header = encode_header(_entries(shard), METADATA, BLOCK_BYTES, _best_residue(relative))
    ranges = [replace(span, start=len(header) + span.start) for span in relative]
    allocate(target, len(header) + shard.nbytes)
    write(target, header, 0)
    sources: dict[Path, int] = {}
    try:
        for span in ranges:
            if span.source is None:
                _make(shard.recipes[span.made], span, target)
                continue
            if span.source not in sources:
                sources[span.source] = os.open(span.source, os.O_RDONLY)
            copy_range(sources[span.source], target, span.source_start, span.start, span.nbytes)
    finally:
        for source in sources.values():
            os.close(source)
    return ranges


def _best_residue(ranges: list[Range]) -> int:
    """Where in a block of the disk the data should start, so that most bytes keep their place in a block.

    A file system can share only those bytes. Tensors stay aligned to 8 bytes.
    """
    gains: dict[int, int] = {0: 0}
    for span in ranges:
        residue = (span.source_start - span.start) % BLOCK_BYTES
        if span.source is not None and residue % 8 == 0:
            gains[residue] = gains.get(residue, 0) + span.nbytes
    return max(gains, key=lambda residue: gains[residue])


def _ranges(shard: Shard) -> Iterator[Range]:
    """The ranges of a file, counted from the start of its data. Neighbours in both files are joined."""
    last: Range | None = None
    offset = 0
    for name, recipe in shard.recipes.items():
        tensor = recipe.sources[0]
        copied = Range(offset, recipe.nbytes, tensor.path, tensor.start)
        offset += recipe.nbytes
        if last is not None and recipe.is_copy and _continues(last, copied):
            last = replace(last, nbytes=last.nbytes + copied.nbytes)
            continue
        if last is not None:
            yield last
        last = copied if recipe.is_copy else Range(copied.start, copied.nbytes, None, made=name)
    if last is not None:
        yield last


def _continues(first: Range, second: Range) -> bool:
    return first.source == second.source and first.source_start + first.nbytes == second.source_start


def _make(recipe: Recipe, place: Range, target: int) -> None:
    if recipe.zero:
        return expect_zeros(target, place.start, place.nbytes)
    offset = place.start
    for part in recipe.slices(place.made):
        write(target, part, offset)
        offset += len(part)


def _entries(shard: Shard) -> dict[str, dict[str, object]]:
    recipes = shard.recipes
    return header_entries(
        {name: recipe.dtype for name, recipe in recipes.items()},
        {name: recipe.shape for name, recipe in recipes.items()},
    )
