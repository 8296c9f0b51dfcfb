"""Write recipes as safetensors files: a new header and copied byte ranges; files that equal the base's may be links."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from solar.growth.files.copying import BLOCK_BYTES, allocate, copy_range, expect_zeros, share_range, write
from solar.growth.files.recipes import Recipe
from solar.weights.folder import SINGLE_FILE, ModelFolder, write_index
from solar.weights.header import DTYPE_BITS, Header, StoredTensor, encode_header, read_header

METADATA = {"format": "pt"}
"""What `transformers` asks to find in a file's header."""
_WORTH_SPLITTING_BYTES = 250_000_000
_LARGE_SHARD_BYTES = 5_000_000_000


class Link(StrEnum):
    """Whether an output file that equals an input file is a second name of it."""

    auto = "auto"
    """A hard link where the file system allows; the two folders then share the file: never write into it."""
    never = "never"


@dataclass(frozen=True)
class Shard:
    """One output file."""

    name: str
    recipes: dict[str, Recipe]
    """In the order of bytes."""
    whole: Path | None = None
    """The input file that this one equals byte for byte."""

    @property
    def nbytes(self) -> int:
        return sum(recipe.nbytes for recipe in self.recipes.values())


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


def plan_shards(base: ModelFolder, recipes: dict[str, Recipe], max_shard_bytes: int | None) -> list[Shard]:
    """Which tensor goes into which file: unchanged input files as they are, the rest in the order it is read.

    Without `max_shard_bytes`, large models get files of 5 GB and smaller ones two: a file is written by one thread.
    """
    if max_shard_bytes is None:
        half = sum(recipe.nbytes for recipe in recipes.values()) // 2 + 1
        max_shard_bytes = min(max(half, _WORTH_SPLITTING_BYTES), _LARGE_SHARD_BYTES)
    whole = {path: names for path in base.files if (names := _kept_whole(base, path, recipes)) is not None}
    kept = {name for names in whole.values() for name in names}
    groups: list[tuple[dict[str, Recipe], Path | None]] = [
        ({name: recipes[name] for name in names}, path) for path, names in whole.items()
    ]
    groups += ((group, None) for group in _fill(_reading_order(recipes, kept), max_shard_bytes))
    if len(groups) == 1:
        return [Shard(SINGLE_FILE, *groups[0])]
    return [Shard(f"model-{i:05d}-of-{len(groups):05d}.safetensors", *group) for i, group in enumerate(groups, start=1)]


def write_shards(shards: list[Shard], folder: Path, link: Link, threads: int) -> dict[str, list[Range]]:
    """Write all files and, where there are several, their index. Files are written side by side.

    Returns of each file which bytes were read back and what they equal.
    """
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        jobs = {shard.name: pool.submit(_write, shard, folder, link) for shard in shards}
        written = {name: job.result() for name, job in jobs.items()}
    if len(shards) > 1:
        file_of = {name: shard.name for shard in shards for name in shard.recipes}
        write_index(folder, file_of, sum(shard.nbytes for shard in shards))
    return written


def _kept_whole(base: ModelFolder, path: Path, recipes: dict[str, Recipe]) -> list[str] | None:
    """Names of a file's tensors, if all of them are in the grown model unchanged and under their own names."""
    names = [name for name, tensor in base.tensors.items() if tensor.path == path]
    same = all(name in recipes and recipes[name] == Recipe.copy(base.tensors[name]) for name in names)
    return names if same and _is_pytorch(read_header(path)) else None


def _is_pytorch(header: Header) -> bool:
    return header.metadata.get("format") == "pt"


def _reading_order(recipes: dict[str, Recipe], kept: set[str]) -> list[tuple[str, Recipe]]:
    """First every source once in the order of its bytes, then the repeats: neighbours in the base stay neighbours.

    Wide dtypes come first, so that every tensor is aligned to its items.
    """
    seen: dict[StoredTensor, int] = {}
    keys = {}
    for name, recipe in recipes.items():
        if name not in kept:
            first = recipe.sources[0]
            turn = seen[first] = seen.get(first, -1) + 1
            keys[name] = (-DTYPE_BITS[recipe.dtype], turn, str(first.path), first.start)
    return [(name, recipes[name]) for name in sorted(keys, key=lambda name: keys[name])]


def _fill(items: list[tuple[str, Recipe]], max_shard_bytes: int) -> Iterator[dict[str, Recipe]]:
    """Groups of at most `max_shard_bytes`, but for a tensor that is larger alone."""
    group: dict[str, Recipe] = {}
    size = 0
    for name, recipe in items:
        if group and size + recipe.nbytes > max_shard_bytes:
            yield group
            group, size = {}, 0
        group[name] = recipe
        size += recipe.nbytes
    if group:
        yield group


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
    ranges = [replace(one, start=len(header) + one.start) for one in relative]
    allocate(target, len(header) + shard.nbytes)
    write(target, header, 0)
    sources: dict[Path, int] = {}
    try:
        for one in ranges:
            if one.source is None:
                _make(shard.recipes[one.made], one, target)
                continue
            if one.source not in sources:
                sources[one.source] = os.open(one.source, os.O_RDONLY)
            copy_range(sources[one.source], target, one.source_start, one.start, one.nbytes)
    finally:
        for source in sources.values():
            os.close(source)
    return ranges


def _best_residue(ranges: list[Range]) -> int:
    """Where in a block the data should start, so that most bytes keep their place in a block.

    Only such bytes can be shared, by file systems that do so. Tensors stay aligned to 8 bytes.
    """
    gains: dict[int, int] = {0: 0}
    for one in ranges:
        residue = (one.source_start - one.start) % BLOCK_BYTES
        if one.source is not None and residue % 8 == 0:
            gains[residue] = gains.get(residue, 0) + one.nbytes
    return max(gains, key=lambda residue: gains[residue])


def _ranges(shard: Shard) -> Iterator[Range]:
    """The ranges a file is made of, from the start of its data; those that continue each other are joined."""
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
    entries: dict[str, dict[str, object]] = {}
    offset = 0
    for name, recipe in shard.recipes.items():
        stop = offset + recipe.nbytes
        entries[name] = {"dtype": recipe.dtype, "shape": list(recipe.shape), "data_offsets": [offset, stop]}
        offset = stop
    return entries
