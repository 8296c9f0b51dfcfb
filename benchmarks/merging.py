"""What a merge costs: `python benchmarks/merging.py [--quick] [--json]`.

Random Llama checkpoints in bfloat16 are merged by `python -m solar.merge`, start-up included, and in the same rounds by
mergekit (`mergekit-yaml` on PATH, or named by SOLAR_MERGEKIT); `cp` copies both inputs and the output. Ratios are taken
within a round, then their median. The less favourable of average and SLERP counts.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from support.commands import HEAD, MERGEKIT, Case, ratio, settle
from support.llama import Llama

OURS = {"average": ["method=average"], "slerp": ["method=slerp", "t=0.5"]}
THEIRS = {"average": "linear", "slerp": "slerp"}


@dataclass(frozen=True)
class Size:
    """A checkpoint's sizes, how often it is merged, and in how many of these rounds mergekit makes which merges."""

    model: Llama
    rounds: int
    mergekit_rounds: int = 0
    mergekit_methods: tuple[str, ...] = ()


FULL = [Size(Llama(32, 1024, 2816), 4, 4, ("average", "slerp")), Size(Llama(42, 2048, 5632), 3)]
"""0.85 GB against mergekit, 4.0 GB against cp."""
QUICK = [Size(Llama(18, 1024, 2816), 2, 1, ("average", "slerp"))]
"""0.54 GB, two merges by mergekit: its start-up alone takes 5 to 10 s."""


def write_checkpoint(folder: Path, model: Llama, seed: int) -> int:
    """Write a model whose weights differ by `seed` from a shared part; returns the bytes of its weights."""
    folder.mkdir()
    shared = np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32)
    own = np.random.default_rng(seed).standard_normal(1 << 22, dtype=np.float32)
    pool = ((0.02 * shared + 0.005 * own).view(np.uint32) >> 16).astype(np.uint16)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in model.shapes().items():
        span = [offset, offset + 2 * int(np.prod(shape))]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, offset // 2, len(pool)):
            file.write(np.roll(pool, start // 4099)[: offset // 2 - start].data)
    model.write_config(folder, "bfloat16")
    return offset


def mergekit_recipe(place: Path, method: str) -> Path:
    """The same merge as a configuration of mergekit (JSON is YAML)."""
    models = [{"model": str(place / name), "parameters": {"weight": 0.5}} for name in "ab"]
    recipe = {"merge_method": method, "models": models, "dtype": "bfloat16"}
    if method == "slerp":
        recipe |= {"base_model": str(place / "a"), "parameters": {"t": 0.5}}
    path = place / f"{method}.yaml"
    path.write_text(json.dumps(recipe))
    return path


def measure(size: Size, place: Path, tell: Callable[[str], None]) -> dict[str, Case]:
    """All cases in turn, round by round."""
    with ProcessPoolExecutor(1) as other:  # memory used here must not count as the commands'
        nbytes = [other.submit(write_checkpoint, place / name, size.model, seed) for seed, name in enumerate("ab", 1)]
    cases: dict[str, Case] = {}

    def run(case: str, command: list[str]) -> None:
        shutil.rmtree(place / "out", ignore_errors=True)
        settle(place, (3 if case == "cp" else 1) * nbytes[0].result())
        cases.setdefault(case, Case()).run(command)

    for number in range(size.rounds):
        for method, settings in OURS.items():
            folders = [str(place / name) for name in ("a", "b", "out")]
            run(f"solar {method}", [sys.executable, "-m", "solar.merge", *folders, *settings])
        (place / "out").rename(place / "merged")
        (place / "copies").mkdir()
        run("cp", ["cp", "-r", *(str(place / name) for name in ("a", "b", "merged", "copies"))])
        for name in ("copies", "merged"):
            shutil.rmtree(place / name)
        if MERGEKIT and number < size.mergekit_rounds:
            for method in size.mergekit_methods:
                recipe = mergekit_recipe(place, THEIRS[method])
                run(f"mergekit {method}", [MERGEKIT, str(recipe), str(place / "out")])
    tell(f"\ntwo checkpoints of {nbytes[0].result() / 1e9:.2f} GB, {size.rounds} rounds")
    tell("\n".join([HEAD, *(case.row(name, cases["cp"]) for name, case in cases.items())]))
    return cases


def ratios(cases: dict[str, Case]) -> dict[str, float | None]:
    """Two figures for a size: how many times faster than mergekit, and how many times as long as cp."""
    against = [
        ratio(cases[f"mergekit {method}"], cases[f"solar {method}"]) for method in OURS if f"mergekit {method}" in cases
    ]
    copying = [ratio(cases[f"solar {method}"], cases["cp"]) for method in OURS]
    return {"mergekit_ratio": round(min(against), 2) if against else None, "cp_ratio": round(max(copying), 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small checkpoints, under a minute")
    parser.add_argument(
        "--json", action="store_true", help="one line: mergekit_ratio (the first size), cp_ratio (the last)"
    )
    parser.add_argument("--place", type=Path, default=None, help="a folder with space for seven checkpoints")
    options = parser.parse_args()
    told = []
    for size in QUICK if options.quick else FULL:
        with tempfile.TemporaryDirectory(dir=options.place and options.place.resolve()) as place:
            told.append(ratios(measure(size, Path(place), (lambda line: None) if options.json else print)))
    summary = {"mergekit_ratio": told[0]["mergekit_ratio"], "cp_ratio": told[-1]["cp_ratio"]}
    print(json.dumps(summary) if options.json else f"\nmergekit / solar, solar / cp: {summary}")


if __name__ == "__main__":
    main()
