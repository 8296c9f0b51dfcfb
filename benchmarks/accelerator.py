"""What an accelerator gives: `python benchmarks/accelerator.py [--tiny] [--seconds N] [--only NAME] [--wheels FOLDER]`.

Sections in order of worth: environment and ceilings; correctness of every way of computing attention, of adapters, of
the fused loss, of a resumed training and of shards; then speed and memory of packed SFT, DPO and pretraining beside the
loop that people write by hand, HF Trainer and TRL; `dus_10b` from growth to merge. Each prints its rows as it goes; the
last line is JSON, also if the run is cut by a signal or out of time. A section that fails says so, and the next one
runs. `--tiny` runs all of it on a CPU. `--wheels`: a folder that `make wheels` filled, for a machine without a network.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "training")]
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products need; before CUDA starts

from support.wheels import install_missing  # noqa: E402

if "--wheels" in sys.argv[:-1]:
    install_missing(Path(sys.argv[sys.argv.index("--wheels") + 1]))

from solar.environment import grow_segments  # noqa: E402

grow_segments()

import torch  # noqa: E402
from support import correct  # noqa: E402
from support.accelerated import Shape, Timer, free, ours, synchronise  # noqa: E402
from support.pipeline import dus  # noqa: E402
from support.rivals import (  # noqa: E402
    bare_loop,
    hf_flattening,
    hf_trainer,
    trl_dpo,
    trl_dpo_precomputed,
    trl_sft,
)

Rows = Iterator[tuple[str, dict[str, Any]]]
Rival = Callable[[Shape, Timer, bool], dict[str, float]]
ONE_B, TEN_B, SMOL = [
    Shape("llama 1B", 16, 2048, 8192, 32, 8, 128256, 4, 4096),
    Shape("10.7B", 48, 4096, 14336, 32, 8, 32000, 2, 4096, recompute=True),
    Shape("smollm2 135M", 30, 576, 1536, 9, 3, 49152, 16, 2048),
]
TINY = [Shape("tiny", 2, 64, 128, 2, 1, 256, 2, 64)]
NEEDS = {"TRL": "trl", "TRL, reference precomputed": "trl"}
"""Rival -> the package without which its row says so."""


class Cut(BaseException):
    """The run was asked to end: nothing that goes on after an error may go on."""


class Run:
    """Settings of a run and what it has measured so far."""

    def __init__(self, tiny: bool, seconds: float) -> None:
        self.tiny, self.seconds, self.began = tiny, seconds, time.monotonic()
        self.deadline = self.section_deadline = self.began + seconds
        self.device = torch.device("cpu" if tiny or not torch.cuda.is_available() else "cuda")
        self.results: dict[str, dict[str, Any]] = {}
        self.matmul_flops = 0.0
        self.measured = False
        """Whether this section has a row."""

    def late(self) -> bool:
        """Whether the time of this section is used up. Its first case runs as long as the whole run has time."""
        return time.monotonic() > (self.section_deadline if self.measured else self.deadline)

    def section(self, name: str, rows: Callable[["Run"], Rows]) -> None:
        """Run and print a section; its failure is a result."""
        self.section_deadline = self.began + self.seconds * _share_until(name)
        self.measured = False
        print(f"\n## {name}", flush=True)
        if time.monotonic() > self.deadline:
            self._add(name, "not run", {"reason": "out of time"})
            return
        try:
            for row, figures in rows(self):
                self._add(name, row, figures)
        except Exception as error:  # noqa: BLE001  (whatever fails, the sections behind it must run)
            self._add(name, "failed", {"error": f"{type(error).__name__}: {error}"[:500]})
            traceback.print_exc(limit=-4)
        free(self.device)

    def _add(self, section: str, row: str, figures: dict[str, Any]) -> None:
        self.measured = True
        self.results.setdefault(section, {})[row] = figures
        shown = "  ".join(f"{key} {_short(value)}" for key, value in figures.items())
        print(f"{row:<34} {shown}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ceilings(run: Run) -> Rows:
    """Copy bandwidth, and the matrix products that the others are measured against."""
    device = run.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    yield "environment", {"device": name, "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    size, repeats = (1 << 20, 2) if run.tiny else (1 << 31, 20)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _seconds(device, lambda: target.copy_(source), repeats)
    yield "copy", {"gb_per_second": 2 * size / seconds / 1e9}
    side = 256 if run.tiny else 8192
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    run.matmul_flops = 2 * side**3 / _seconds(device, lambda: a @ b, repeats)
    yield "bf16 matmul", {"tflops": run.matmul_flops / 1e12}


def _seconds(device: torch.device, work: Callable[[], Any], repeats: int) -> float:
    work()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronise(device)
    return (time.perf_counter() - began) / repeats


def correctness(run: Run) -> Rows:
    """Every way of attention, adapters, the loss, whole small trainings."""
    for part in (correct.ways, correct.adapters, correct.fused_loss, correct.trainings):
        if run.late():
            yield part.__name__, {"not_run": "out of time"}
            continue
        try:
            yield from part(run.device)
        except Exception as error:  # noqa: BLE001  (whatever fails, the parts behind it must run)
            yield part.__name__, {"error": f"{type(error).__name__}: {error}"[:500]}
            traceback.print_exc(limit=-4)
        free(run.device)


def shared_prompts(run: Run) -> Rows:
    return correct.shared_prompts(run.device)


LOOPS: dict[str, Rival] = {"bare loop": bare_loop, "HF Trainer": hf_trainer}
SFT: dict[str, Rival] = {"HF Trainer, flattening": hf_flattening, "TRL": trl_sft}
PAIRS: dict[str, Rival] = {"TRL": trl_dpo, "TRL, reference precomputed": trl_dpo_precomputed}


def packed_sft(run: Run) -> Rows:
    """Rows of documents of log-normal lengths; adapters beside floats and beside few bits show their peaks."""
    shape = TINY[0] if run.tiny else ONE_B
    yield from _beside(run, shape, "sft", SFT)
    adapted = {name: partial(ours, adapter=name) for name in ("floats", "nf4")}
    for name, case in adapted.items():
        yield from _measured(run, f"{shape.name}: ours, adapter beside {name}", case, shape, "sft", False)


def dpo(run: Run) -> Rows:
    """Pairs a second, each with a prompt of half a row."""
    return _beside(run, TINY[0] if run.tiny else ONE_B, "dpo", PAIRS)


def grown(run: Run) -> Rows:
    return dus(run.device, run.tiny, run.section_deadline)


def pretraining(run: Run) -> Rows:
    """Full rows; `of_matmul`: model FLOPs as a share of the measured ceiling."""
    yield from _beside(run, TINY[0] if run.tiny else ONE_B, "pretrain", LOOPS)
    if not run.tiny:
        yield from _measured(run, f"{TEN_B.name}: ours, compiled", ours, TEN_B, "pretrain", True)
        yield from _measured(run, f"{TEN_B.name}: bare loop", bare_loop, TEN_B, True)


def other_shapes(run: Run) -> Rows:
    """What the sections above left out."""
    for shape in [] if run.tiny else [SMOL, TEN_B]:
        for kind, rivals in (("pretrain", LOOPS), ("sft", SFT), ("dpo", PAIRS)):
            for row, figures in _beside(run, shape, kind, rivals):
                yield f"{kind} {row}", figures


def _beside(run: Run, shape: Shape, kind: str, rivals: dict[str, Rival]) -> Rows:
    """Ours, as it is and compiled, and the rivals, each in memory alone; those of full rows are compiled, too."""
    compiles = run.device.type == "cuda"
    for name, compiled in [("ours", False), *([("ours, compiled", True)] if compiles else [])]:
        yield from _measured(run, f"{shape.name}: {name}", ours, shape, kind, compiled)
    for name, rival in rivals.items():
        yield from _measured(
            run, f"{shape.name}: {name}", rival, shape, compiles and kind == "pretrain", needs=NEEDS.get(name)
        )


def _steps(run: Run, shape: Shape) -> tuple[int, int]:
    """Steps before the measured ones, and all; one of 10.7B takes more than a second."""
    return (1, 3) if run.tiny else (3, 8) if shape is TEN_B else (4, 14)


def _measured(run: Run, row: str, case: Callable[..., Any], shape: Shape, *rest: Any, needs: str | None = None) -> Rows:
    if needs is not None and find_spec(needs) is None:
        yield row, {"not_run": f"{needs} is not installed"}
        return
    if run.late():
        yield row, {"not_run": "out of time"}
        return
    try:
        figures = case(shape, Timer(run.device, *_steps(run, shape)), *rest)
    except (RuntimeError, ImportError, ValueError, TypeError, AttributeError) as error:  # memory, or a rival's change
        figures = {"error": f"{type(error).__name__}: {error}"[:300]}
    if run.matmul_flops and "flops_per_second" in figures:
        figures["of_matmul"] = figures["flops_per_second"] / run.matmul_flops
    free(run.device)
    yield row, figures


SECTIONS = {
    "ceilings": ceilings,
    "correctness": correctness,
    "shared prompts": shared_prompts,
    "packed SFT": packed_sft,
    "DPO": dpo,
    "pretraining": pretraining,
    "dus_10b": grown,
    "other shapes": other_shapes,
}
SHARES = {
    "ceilings": 0.03,
    "correctness": 0.22,
    "shared prompts": 0.03,
    "packed SFT": 0.16,
    "DPO": 0.13,
    "pretraining": 0.18,
    "dus_10b": 0.25,
    "other shapes": 0.0,
}
"""Section -> its share of the time. What a section leaves is there for those behind it."""


def _share_until(section: str) -> float:
    """The share of the time that has passed when a section should end; the last one has what is left."""
    names = list(SECTIONS)[: list(SECTIONS).index(section) + 1]
    return sum(SHARES[name] for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small shapes on the CPU")
    parser.add_argument(
        "--seconds", type=float, default=460, help="no case starts after this many, divided among the sections"
    )
    parser.add_argument("--only", choices=list(SECTIONS), help="one section")
    parser.add_argument("--wheels", type=Path, help="install what is missing from this folder first")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _cut)
    run = Run(arguments.tiny, arguments.seconds)
    try:
        for name, rows in SECTIONS.items():
            if arguments.only in (None, name):
                run.section(name, rows)
    except Cut as cut:
        print(f"\ncut: {cut}", flush=True)
    finally:
        print("\n" + json.dumps(run.results), flush=True)


def _cut(number: int, _: Any) -> None:
    raise Cut(signal.Signals(number).name)


if __name__ == "__main__":
    main()
