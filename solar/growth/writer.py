"""Write recipes as safetensors files: a new header and copied byte ranges; files that equal the base's may be links."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from solar.growth.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint, StoredTensor
from solar.growth.copying import BLOCK_BYTES, allocate, copy_range, share_range
from solar.growth.recipes import Recipe
from solar.growth.safetensors_file import DTYPE_BITS, Header, encode_header, read_header

METADATA = {"format": "pt"}
"""What `transformers` asks to find in a file's header."""
Range = tuple[Path | None, int, int, str]
"""Source file (none: made by recipe), offset, length, and the name of a tensor that is made by recipe."""
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


def plan_shards(base: Checkpoint, recipes: dict[str, Recipe], max_shard_bytes: int | None) -> list[Shard]:
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


def write_shards(shards: list[Shard], folder: Path, link: Link, threads: int) -> None:
    """Write all files and, where there are several, their index. Files are written side by side."""
    linked = {shard.name for shard in shards if link is Link.auto and _linked(shard, folder)}
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        jobs = [pool.submit(_write, shard, folder) for shard in shards if shard.name not in linked]
        for job in jobs:
            job.result()
    if len(shards) > 1:
        weight_map = {name: shard.name for shard in shards for name in shard.recipes}
        index = {
            "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
            "weight_map": dict(sorted(weight_map.items())),
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n")


def _kept_whole(base: Checkpoint, path: Path, recipes: dict[str, Recipe]) -> list[str] | None:
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
            keys[name] = (-DTYPE_BITS[recipe.dtype], turn, str(first.path), first.entry.start)
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


def _linked(shard: Shard, folder: Path) -> bool:
    if shard.whole is None:
        return False
    try:
        os.link(shard.whole.resolve(), folder / shard.name)
    except OSError:
        return False
    return True


def _write(shard: Shard, folder: Path) -> None:
    target = os.open(folder / shard.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if shard.whole is not None:
            _copy_file(shard.whole, target)
        else:
            _write_tensors(shard, target)
    finally:
        os.close(target)


def _copy_file(path: Path, target: int) -> None:
    source = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(source).st_size
        if not share_range(source, target, 0, 0, size):
            allocate(target, size)
            copy_range(source, target, 0, 0, size)
    finally:
        os.close(source)


def _write_tensors(shard: Shard, target: int) -> None:
    ranges = list(_ranges(shard))
    header, offset = encode_header(_entries(shard), METADATA, BLOCK_BYTES, _best_residue(ranges)), 0
    allocate(target, len(header) + shard.nbytes)
    os.pwrite(target, header, 0)
    sources: dict[Path, int] = {}
    try:
        for path, start, nbytes, name in ranges:
            if path is not None:
                source = sources.get(path)
                if source is None:
                    source = sources[path] = os.open(path, os.O_RDONLY)
                copy_range(source, target, start, len(header) + offset, nbytes)
            elif not shard.recipes[name].zero:
                _write_slices(shard.recipes[name], name, target, len(header) + offset)
            offset += nbytes
    finally:
        for source in sources.values():
            os.close(source)


def _best_residue(ranges: list[Range]) -> int:
    """Where in a block the data should start, so that most bytes keep their place in a block.

    Only such bytes can be shared, by file systems that do so. Tensors stay aligned to 8 bytes.
    """
    gains: dict[int, int] = {0: 0}
    offset = 0
    for path, start, nbytes, _ in ranges:
        residue = (start - offset) % BLOCK_BYTES
        if path is not None and residue % 8 == 0:
            gains[residue] = gains.get(residue, 0) + nbytes
        offset += nbytes
    return max(gains, key=lambda residue: gains[residue])


def _ranges(shard: Shard) -> Iterator[Range]:
    """The ranges a file is made of; those that continue each other are joined."""
    path: Path | None = None
    start = nbytes = 0
    for name, recipe in shard.recipes.items():
        tensor = recipe.sources[0]
        if recipe.is_copy and path == tensor.path and start + nbytes == tensor.entry.start:
            nbytes += recipe.nbytes
            continue
        if path is not None:
            yield path, start, nbytes, ""
        path, start, nbytes = (tensor.path, tensor.entry.start, recipe.nbytes) if recipe.is_copy else (None, 0, 0)
        if not recipe.is_copy:
            yield None, 0, recipe.nbytes, name
    if path is not None:
        yield path, start, nbytes, ""


def _write_slices(recipe: Recipe, name: str, target: int, offset: int) -> None:
    for part in recipe.slices(name):
        os.pwrite(target, part, offset)
        offset += len(part)


def _entries(shard: Shard) -> dict[str, dict[str, object]]:
    entries: dict[str, dict[str, object]] = {}
    offset = 0
    for name, recipe in shard.recipes.items():
        stop = offset + recipe.nbytes
        entries[name] = {"dtype": recipe.dtype, "shape": list(recipe.shape), "data_offsets": [offset, stop]}
        offset = stop
    return entries
