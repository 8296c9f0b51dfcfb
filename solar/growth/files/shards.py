"""Which tensor goes into which file of the grown model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from solar.growth.files.recipes import Recipe
from solar.weights.folder import SINGLE_FILE, ModelFolder
from solar.weights.header import DTYPE_BITS, Header, StoredTensor, read_header

_WORTH_SPLITTING_BYTES = 250_000_000
_LARGE_SHARD_BYTES = 5_000_000_000


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


def plan_shards(base: ModelFolder, recipes: dict[str, Recipe], max_shard_bytes: int | None) -> list[Shard]:
    """Which tensor goes into which file: unchanged input files as they are, the rest in the order it is read.

    Without `max_shard_bytes`, large models get files of 5 GB and smaller ones two: a file is written by one thread.
    """
    if max_shard_bytes is None:
        half = sum(recipe.nbytes for recipe in recipes.values()) // 2 + 1
        max_shard_bytes = min(max(half, _WORTH_SPLITTING_BYTES), _LARGE_SHARD_BYTES)
    whole = {path: names for path in base.files if (names := _kept_whole(base, path, recipes)) is not None}
    written_whole = {name for names in whole.values() for name in names}
    groups: list[tuple[dict[str, Recipe], Path | None]] = [
        ({name: recipes[name] for name in names}, path) for path, names in whole.items()
    ]
    groups += ((group, None) for group in _fill(_reading_order(recipes, written_whole), max_shard_bytes))
    if len(groups) == 1:
        return [Shard(SINGLE_FILE, *groups[0])]
    return [Shard(f"model-{i:05d}-of-{len(groups):05d}.safetensors", *group) for i, group in enumerate(groups, start=1)]


def _kept_whole(base: ModelFolder, path: Path, recipes: dict[str, Recipe]) -> list[str] | None:
    """Names of a file's tensors, if all of them are in the grown model unchanged and under their own names."""
    names = [name for name, tensor in base.tensors.items() if tensor.path == path]
    same = all(name in recipes and recipes[name] == Recipe.copy(base.tensors[name]) for name in names)
    return names if same and _is_pytorch(read_header(path)) else None


def _is_pytorch(header: Header) -> bool:
    return header.metadata.get("format") == "pt"


def _reading_order(recipes: dict[str, Recipe], written_whole: set[str]) -> list[tuple[str, Recipe]]:
    """First every source once in the order of its bytes, then the repeats: neighbours in the base stay neighbours.

    Wide dtypes come first, so that every tensor is aligned to its items.
    """
    seen: dict[StoredTensor, int] = {}
    keys = {}
    for name, recipe in recipes.items():
        if name not in written_whole:
            first = recipe.sources[0]
            turn = seen[first] = seen.get(first, -1) + 1
            keys[name] = (-DTYPE_BITS[recipe.dtype], turn, str(first.path), first.start)
    return [(name, recipes[name]) for name in sorted(keys, key=lambda name: keys[name])]


def _fill(items: list[tuple[str, Recipe]], max_shard_bytes: int) -> Iterator[dict[str, Recipe]]:
    """Groups of at most `max_shard_bytes`; a tensor that is larger is a group by itself."""
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
