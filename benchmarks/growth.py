"""What growing costs: `python benchmarks/growth.py [--quick] [--json]`.

A random Mistral-shaped checkpoint in bfloat16 (32 layers -> 48, m = 8) is grown by `python -m solar.grow` with
`verify=bytes`, start-up included, and in the same rounds by its rivals: `cp` of the same output bytes, mergekit's
passthrough with its best flags (`mergekit-yaml` on PATH, or named by SOLAR_MERGEKIT) and the transformers way (load,
copy layers, save). Ratios are taken within a round, then their median. Warm: the base is in the page cache. Cold: its
pages were dropped first.

`cp_ratio` is ours / cp: below 1 is faster than cp. `mergekit_ratio` is mergekit / ours: above 1 is faster.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solar.growth.safetensors_file import encode_header

ROOT = Path(__file__).resolve().parents[1]
MERGEKIT = os.environ.get("SOLAR_MERGEKIT") or shutil.which("mergekit-yaml")
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
class Size:
    """A base's sizes, how often it is grown, and in how many of these rounds the slow rivals are."""

    hidden: int
    intermediate: int
    shards: int
    rounds: int
    rival_rounds: int


QUICK = [Size(1024, 2048, 3, 5, 1)]
"""0.70 GB -> 0.97 GB."""
FULL = [Size(1024, 2048, 3, 5, 3), Size(2048, 7168, 4, 3, 1)]
"""The same, and 3.8 GB -> 5.5 GB."""


@dataclass
class Case:
    """One command's figures, a round each."""

    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    def run(self, command: list[str]) -> None:
        began = time.perf_counter()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{command[0]} failed: {said.decode()[-1000:]}")
        self.wall_seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(usage.ru_utime + usage.ru_stime)
        self.peak_mb.append(usage.ru_maxrss / 1024)


def shapes(size: Size) -> dict[str, list[int]]:
    """Tensor name -> shape, 32,000 tokens, a quarter as many key-value heads as heads."""
    h, inner = size.hidden, size.intermediate
    layer = {
        **{"self_attn.q_proj": [h, h], "self_attn.k_proj": [h // 4, h], "self_attn.v_proj": [h // 4, h]},
        **{"self_attn.o_proj": [h, h], "mlp.gate_proj": [inner, h], "mlp.up_proj": [inner, h]},
        **{"mlp.down_proj": [h, inner], "input_layernorm": [h], "post_attention_layernorm": [h]},
    }
    layers = {f"model.layers.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in layer.items()}
    return {"model.embed_tokens.weight": [32000, h], **layers, "model.norm.weight": [h], "lm_head.weight": [32000, h]}


def write_base(folder: Path, size: Size) -> int:
    """A checkpoint of random bytes; returns how many."""
    folder.mkdir()
    nbytes = {name: 2 * math.prod(shape) for name, shape in shapes(size).items()}
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
            entries[name] = {"dtype": "BF16", "shape": shapes(size)[name], "data_offsets": span}
            offset, weight_map[name] = span[1], path.name
        with path.open("wb") as file:
            file.write(encode_header(entries, {"format": "pt"}))
            for start in range(0, offset, len(pool)):
                file.write((start.to_bytes(8, "little") + pool[8:])[: offset - start])
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        **{
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
        },
        **{"hidden_size": size.hidden, "intermediate_size": size.intermediate, "num_hidden_layers": LAYERS},
        **{"num_attention_heads": size.hidden // 64, "num_key_value_heads": size.hidden // 256, "vocab_size": 32000},
        **{"sliding_window": None, "tie_word_embeddings": False, "dtype": "bfloat16", "max_position_embeddings": 4096},
    }
    (folder / "config.json").write_text(json.dumps(config))
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
    """Ask the system to forget the files' pages, as far as it will."""
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def measure(size: Size, place: Path, cold: bool, quick: bool) -> dict[str, Case]:
    """All cases in turn, round by round; the slow rivals in the first rounds only."""
    cases: dict[str, Case] = {}
    known = commands(place)
    Case().run(known["solar"])
    (place / "out").rename(place / "grown")
    for number in range(size.rounds):
        for name, command in known.items():
            slow = name in ("transformers", "mergekit")
            if slow and (number >= size.rival_rounds or (quick and name == "transformers")):
                continue
            if cold:
                drop_pages(place / "base")
                drop_pages(place / "grown")
            print(f"{'cold' if cold else 'warm'} {number + 1}/{size.rounds}: {name}", file=sys.stderr)
            cases.setdefault(name, Case()).run(command)
            shutil.rmtree(place / "out")
    shutil.rmtree(place / "grown")
    return cases


def ratio(one: Case | None, other: Case | None) -> float | None:
    """Median over rounds of wall seconds."""
    if one is None or other is None:
        return None
    return statistics.median(a / b for a, b in zip(one.wall_seconds, other.wall_seconds, strict=False))


def startup_seconds() -> float:
    """Median wall seconds of a command that only says what it would say: imports and options."""
    case = Case()
    for _ in range(5):
        case.run([sys.executable, "-m", "solar.grow", "--help"])
    return statistics.median(case.wall_seconds)


def table(found: dict[str, dict[str, Case]]) -> str:
    rows = ["| case | wall s | x cp | CPU s | peak MB |", "| --- | --- | --- | --- | --- |"]
    for title, cases in found.items():
        for name, case in cases.items():
            times = statistics.median(case.wall_seconds)
            relative = ratio(case, cases["cp"])
            peak, cpu = max(case.peak_mb), statistics.median(case.cpu_seconds)
            rows.append(f"| {title}: {name} | {times:.2f} | {relative:.2f} | {cpu:.2f} | {peak:.0f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, warm, few rounds")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument(
        "--folder", type=Path, help="where the checkpoints are written; a temporary folder, if not given"
    )
    chosen = parser.parse_args()
    found: dict[str, dict[str, Case]] = {}
    for size in QUICK if chosen.quick else FULL:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            place = Path(name)
            total = write_base(place / "base", size)
            for cold in [False] if chosen.quick else [False, True]:
                title = f"{total / 1e9:.1f} GB {'cold' if cold else 'warm'}"
                found[title] = measure(size, place, cold, chosen.quick)
    first = next(iter(found.values()))
    figures = {
        "cp_ratio": ratio(first["solar"], first["cp"]),
        "cp_cpu_ratio": statistics.median(
            a / b for a, b in zip(first["solar"].cpu_seconds, first["cp"].cpu_seconds, strict=True)
        ),
        "links_cp_ratio": ratio(first["solar, links"], first["cp"]),
        "mergekit_ratio": ratio(first.get("mergekit"), first["solar"]),
        "transformers_ratio": ratio(first.get("transformers"), first["solar"]),
        "peak_mb": max(peak for cases in found.values() for peak in cases["solar"].peak_mb),
        "startup_seconds": startup_seconds(),
    }
    print(json.dumps(figures) if chosen.json else f"{table(found)}\n\n{json.dumps(figures, indent=2)}")


if __name__ == "__main__":
    main()
