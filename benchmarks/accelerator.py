"""What an accelerator gives: `python benchmarks/accelerator.py [--tiny] [--seconds N] [--only NAME]`.

Sections in order of worth: environment and ceilings, correctness of every way of computing attention, then speed and
memory of pretraining, packed SFT and DPO beside the loop that people write by hand and HF Trainer. Each prints its rows
as it goes; the last line is JSON, also if the run is cut by a signal or out of time. A section that fails says so, and
the next one runs. `--tiny` runs all of it on a CPU.
"""

import argparse
import json
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "training")]

from support.accelerated import Shape, Timer, bare_loop, free, hf_trainer, ours, synchronise  # noqa: E402

from solar.network.attention import NAME, Segment  # noqa: E402
from solar.network.decoder import Decoder  # noqa: E402
from solar.network.head import body_of  # noqa: E402
from solar.network.isolation import family_of, in_one_pass, layout_of  # noqa: E402
from solar.network.kernels.choice import Way  # noqa: E402

Rows = Iterator[tuple[str, dict[str, Any]]]
SHAPES = [
    Shape("llama 1B", 16, 2048, 8192, 32, 8, 128256, 4, 4096),
    Shape("10.7B", 48, 4096, 14336, 32, 8, 32000, 2, 4096, recompute=True),
    Shape("smollm2 135M", 30, 576, 1536, 9, 3, 49152, 16, 2048),
]
TINY = [Shape("tiny", 2, 64, 128, 2, 1, 256, 2, 64)]


class Cut(Exception):
    """The run was asked to end."""


class Run:
    """Settings of a run and what it has measured so far."""

    def __init__(self, tiny: bool, seconds: float) -> None:
        self.tiny, self.deadline = tiny, time.monotonic() + seconds
        self.device = torch.device("cpu" if tiny or not torch.cuda.is_available() else "cuda")
        self.results: dict[str, dict[str, Any]] = {}
        self.matmul_flops = 0.0

    def section(self, name: str, rows: Callable[["Run"], Rows]) -> None:
        """Run and print a section; its failure is a result."""
        print(f"\n## {name}", flush=True)
        if time.monotonic() > self.deadline:
            self._add(name, "not run", {"reason": "out of time"})
            return
        try:
            for row, figures in rows(self):
                self._add(name, row, figures)
        except Cut:
            raise
        except Exception as error:  # noqa: BLE001  (whatever fails, the sections behind it must run)
            self._add(name, "failed", {"error": f"{type(error).__name__}: {error}"[:500]})
            traceback.print_exc(limit=-4)
        free(self.device)

    def _add(self, section: str, row: str, figures: dict[str, Any]) -> None:
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


LENGTHS = [70, 33, 1, 90, 62]


def correctness(run: Run) -> Rows:
    """Hidden states and gradients of every way, against the same weights in float64 on the host; and isolation."""
    ids = torch.randint(3, 1000, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    shape = Shape("", 2, 256, 512, 4, 2, 1024, 1, 512)
    cpu = torch.device("cpu")
    exact_network = shape.network(cpu, torch.float64, NAME).eval()
    exact = _states_and_gradients(exact_network, Way.segments, ids, True)
    half, single = torch.bfloat16, torch.float32
    for way, dtype in [(Way.segments, single), (Way.flex, single), (Way.flex, half), (Way.varlen, half)]:
        row = f"{way} {str(dtype).removeprefix('torch.')}"
        if way is Way.varlen and run.device.type == "cpu":
            yield row, {"not_run": "needs CUDA"}
            continue
        network = shape.network(cpu, torch.float64, NAME).to(run.device, dtype).eval()
        gradients = not (way is Way.flex and run.device.type == "cpu")  # FlexAttention has no backward pass there
        values = _states_and_gradients(network, way, ids, gradients)
        errors = {key: _error(value, exact[key]) for key, value in values.items()}
        yield row, {**errors, "isolated": _isolated(network, way, ids)}


def _states_and_gradients(network: Any, way: Way, ids: torch.Tensor, gradients: bool) -> dict[str, torch.Tensor]:
    network.zero_grad()
    with torch.set_grad_enabled(gradients):
        states_TD = _states(network, way, ids)
        weights_TD = torch.randn(states_TD.shape, generator=torch.Generator().manual_seed(1)).to(states_TD)
        loss = (states_TD * weights_TD).sum()
    values = {"states": states_TD.detach()}
    if gradients:
        loss.backward()
        values["embedding_gradient"] = network.get_input_embeddings().weight.grad.clone()
        values["key_gradient"] = network.model.layers[0].self_attn.k_proj.weight.grad.clone()
    return values


def _states(network: Any, way: Way, ids: torch.Tensor) -> torch.Tensor:
    segments = [Segment(length) for length in LENGTHS]
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).to(network.device)
    layout = layout_of(way, segments, network, family_of(network))
    return in_one_pass(body_of(network), ids.to(network.device), positions, layout)[0]


def _error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value.double().cpu() - exact).abs().max() / exact.abs().max())


@torch.no_grad()
def _isolated(network: Any, way: Way, ids: torch.Tensor) -> bool:
    """Whether changing the second document leaves the bits of the others alone."""
    changed = ids.clone()
    start, end = LENGTHS[0], LENGTHS[0] + LENGTHS[1]
    changed[start:end] = (changed[start:end] + 1) % 1000
    before, after = (_states(network, way, row) for row in (ids, changed))
    others = torch.equal(before[:start], after[:start]) and torch.equal(before[end:], after[end:])
    return others and not torch.equal(before[start:end], after[start:end])


def shared_prompts(run: Run) -> Rows:
    """A row in which two answers share a prompt, through the decoder as training calls it, against float64."""
    shape = Shape("", 2, 256, 512, 4, 2, 1024, 1, 512)
    ids = torch.randint(3, 1000, (150,), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(100), torch.arange(60, 110)])
    segments = [Segment(100), Segment(50, (0, 60))]
    network = shape.network(torch.device("cpu"), torch.float64, NAME).eval()
    with torch.no_grad():
        exact = Decoder(network)(ids, positions, segments)[0]
        decoder = Decoder(network.to(run.device, torch.bfloat16))
        states = decoder(ids.to(run.device), positions.to(run.device), segments)[0]
    yield "two answers", {"states": _error(states, exact), "attention": "; ".join(decoder.choices)}


def pretraining(run: Run) -> Rows:
    """Full rows; `of_matmul`: model FLOPs as a share of the measured ceiling."""
    for shape in TINY if run.tiny else SHAPES:
        yield from _beside(run, shape, "pretrain", {"bare loop": bare_loop, "HF Trainer": hf_trainer})


def packed_sft(run: Run) -> Rows:
    """Rows of documents of log-normal lengths."""
    for shape in TINY if run.tiny else SHAPES[:1]:
        yield from _beside(run, shape, "sft", {})


def dpo(run: Run) -> Rows:
    """Pairs a second, each with a prompt of half a row."""
    for shape in TINY if run.tiny else SHAPES[:1]:
        yield from _beside(run, shape, "dpo", {})


def _beside(run: Run, shape: Shape, kind: str, rivals: dict[str, Callable[..., dict[str, float]]]) -> Rows:
    """Ours, as it is and compiled, and the rivals, each in memory alone."""
    warm, steps = (1, 3) if run.tiny else (4, 14)
    cases: dict[str, Callable[[Timer], dict[str, float]]] = {"ours": lambda timer: ours(shape, timer, kind, False)}
    compiles = run.device.type == "cuda"
    if compiles:
        cases["ours, compiled"] = lambda timer: ours(shape, timer, kind, True)
    for name, rival in rivals.items():
        cases[name] = lambda timer, rival=rival: rival(shape, timer, compiles)  # type: ignore[misc]
    for name, case in cases.items():
        row = f"{shape.name}: {name}"
        if time.monotonic() > run.deadline:
            yield row, {"not_run": "out of time"}
            continue
        try:
            figures = case(Timer(run.device, warm, steps))
        except (RuntimeError, ImportError, ValueError) as error:  # out of memory, or a rival that is not there
            figures = {"error": f"{type(error).__name__}: {error}"[:300]}  # type: ignore[dict-item]
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
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small shapes on the CPU")
    parser.add_argument("--seconds", type=float, default=460, help="no section or case starts after this many")
    parser.add_argument("--only", choices=list(SECTIONS), help="one section")
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
