"""What growing costs: `python benchmarks/growth.py [--quick] [--json]`.

A random Llama checkpoint in bfloat16 (32 layers -> 48, m = 8) is grown by `python -m solar.grow` with
`verify=bytes`, start-up included, and in the same rounds by its rivals: `cp` of the same output bytes, mergekit's
passthrough with its best flags (`mergekit-yaml` on PATH, or named by SOLAR_MERGEKIT) and the transformers way (load,
copy layers, save). Ratios are taken within a round, then their median. Warm: what is read is in the page cache. Cold:
its pages were dropped first, those of the base and those of what `cp` reads (which is as much as it writes).

`cp_ratio` is ours / cp: below 1 is faster than cp. `mergekit_ratio` and `transformers_ratio` are theirs / ours.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.commands import HEAD, MERGEKIT, Case, ratio, settle
from support.llama import Llama

from solar.weights.header import encode_header

SLOW = ("transformers", "mergekit")
MERGEKIT_FLAGS = ["--lazy-unpickle", "--async-write", "--write-threads", "2", "--out-shard-size", "1B", "-j", "2"]
LAYERS, DROPPED = 32, 8
TRANSFORMERS_WAY = """
import copy, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
layers = [*range(24), *range(8, 32)]
model.model.layers = torch.nn.ModuleList(copy.deepcopy(model.model.layers[i]) for i in layers)
model.config.num_hidden_layers = len(layers)
model.save_pretrained(sys.argv[2])
"""


@dataclass(frozen=True)
class Rounds:
    """How many rounds there are, and in how many of them each of the slow rivals takes part."""

    all: int
    rivals: int
    slow: tuple[str, ...] = SLOW


@dataclass(frozen=True)
class Size:
    """A base's sizes, and how often the base is grown with its pages in the cache (warm) and without (cold)."""

    model: Llama
    shards: int
    warm: Rounds
    cold: Rounds


SMALL, LARGE = Llama(LAYERS, 1024, 2048), Llama(LAYERS, 2048, 7168)
QUICK = [Size(SMALL, 3, Rounds(3, 1, ("mergekit",)), Rounds(1, 0))]
"""0.70 GB -> 0.97 GB."""
FULL = [Size(SMALL, 3, Rounds(5, 2), Rounds(3, 1)), Size(LARGE, 4, Rounds(3, 1), Rounds(2, 1))]
"""The same, and 3.8 GB -> 5.5 GB."""


def write_base(folder: Path, size: Size) -> int:
    """Write a checkpoint of random bytes; returns the number of bytes."""
    folder.mkdir()
    shapes = size.model.shapes()
    nbytes = {name: 2 * math.prod(shape) for name, shape in shapes.items()}
    total, pool = sum(nbytes.values()), os.urandom(1 << 20)
    groups: list[list[str]] = [[]]
    for name in nbytes:
        if sum(nbytes[one] for one in groups[-1]) > total / size.shards:
            groups.append([])
        groups[-1].append(name)
    weight_map = {}
    for number, names in enumerate(groups, start=1):
        path = folder / f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        entries: dict[str, dict[str, Any]] = {}
        offset = 0
        for name in names:
            span = [offset, offset + nbytes[name]]
            entries[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": span}
            offset, weight_map[name] = span[1], path.name
        with path.open("wb") as file:
            file.write(encode_header(entries, {"format": "pt"}))
            for start in range(0, offset, len(pool)):
                file.write((start.to_bytes(8, "little") + pool[8:])[: offset - start])
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    size.model.write_config(folder, "bfloat16")
    return total


def commands(place: Path) -> dict[str, list[str]]:
    """Case -> command; each writes `place`/out."""
    base, out, recipe = place / "base", str(place / "out"), place / "recipe.yaml"
    slices = [[0, LAYERS - DROPPED], [DROPPED, LAYERS]]
    sources = [{"sources": [{"model": str(base), "layer_range": bounds}]} for bounds in slices]
    recipe.write_text(json.dumps({"merge_method": "passthrough", "dtype": "bfloat16", "slices": sources}))
    grow = [sys.executable, "-m", "solar.grow", str(base), out, f"m={DROPPED}", "verify=bytes"]
    found = {
        "cp": ["cp", "-r", str(place / "grown"), out],
        "solar": [*grow, "link=never"],
        "solar, links": [*grow, "link=auto"],
        "transformers": [sys.executable, "-c", TRANSFORMERS_WAY, str(base), out],
    }
    if MERGEKIT is not None:
        found["mergekit"] = [MERGEKIT, str(recipe), out, *MERGEKIT_FLAGS]
    return found


def drop_pages(folder: Path) -> None:
    """Ask the operating system to drop the files' pages from its cache."""
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def measure(place: Path, rounds: Rounds, cold: bool) -> dict[str, Case]:
    """All cases in turn, round by round; the slow rivals in the first rounds only."""
    cases: dict[str, Case] = {}
    known = commands(place)
    for number in range(rounds.all):
        for name, command in known.items():
            if name in SLOW and (name not in rounds.slow or number >= rounds.rivals):
                continue
            print(f"{'cold' if cold else 'warm'} {number + 1}/{rounds.all}: {name}", file=sys.stderr)
            settle(place, sum(path.stat().st_size for path in (place / "grown").iterdir()))
            if cold:
                drop_pages(place / "base")
                drop_pages(place / "grown")
            cases.setdefault(name, Case()).run(command)
            shutil.rmtree(place / "out")
    return cases


def measure_size(size: Size, folder: Path | None) -> dict[str, dict[str, Case]]:
    """Title -> cases, warm and cold."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        title = f"{write_base(place / 'base', size) / 1e9:.1f} GB"
        Case().run(commands(place)["solar"])
        (place / "out").rename(place / "grown")
        return {
            f"{title} warm": measure(place, size.warm, cold=False),
            f"{title} cold": measure(place, size.cold, cold=True),
        }


def startup_seconds() -> float:
    """Median wall seconds of a command that only prints its help: imports and options."""
    case = Case()
    for _ in range(5):
        case.run([sys.executable, "-m", "solar.grow", "--help"])
    return statistics.median(case.wall_seconds)


def summary(found: dict[str, dict[str, Case]]) -> dict[str, float | None]:
    """Ratios of the first size; the peak of all."""
    warm, cold = [*found.values()][:2]
    ours = warm["solar"]
    figures = {
        "cp_ratio": ratio(ours, warm["cp"]),
        "cp_cpu_ratio": ratio(ours, warm["cp"], "cpu_seconds"),
        "cold_cp_ratio": ratio(cold["solar"], cold["cp"]),
        "links_cp_ratio": ratio(warm["solar, links"], warm["cp"]),
        "mergekit_ratio": ratio(warm["mergekit"], ours) if "mergekit" in warm else None,
        "transformers_ratio": ratio(warm["transformers"], ours) if "transformers" in warm else None,
        "peak_mb": max(peak for cases in found.values() for peak in cases["solar"].peak_mb),
        "startup_seconds": startup_seconds(),
    }
    return {name: value if value is None else round(value, 3) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, few rounds, no transformers: under 50 s")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument(
        "--folder", type=Path, help="where the checkpoints are written; a temporary folder, if not given"
    )
    chosen = parser.parse_args()
    found: dict[str, dict[str, Case]] = {}
    for size in QUICK if chosen.quick else FULL:
        found |= measure_size(size, chosen.folder)
    figures = summary(found)
    rows = [case.row(f"{title}: {name}", cases["cp"]) for title, cases in found.items() for name, case in cases.items()]
    print(json.dumps(figures) if chosen.json else "\n".join([HEAD, *rows, "", json.dumps(figures, indent=2)]))


if __name__ == "__main__":
    main()
