"""Whether what a GPU computes is right: against float64 on the host, or against the same work done otherwise."""

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solar.config.training import AdapterConfig, FrozenBase, Precision, PretrainConfig
from solar.network.adapter import add_adapter
from solar.network.attention import NAME, Segment
from solar.network.cross_entropy import cross_entropy_sum
from solar.network.decoder import Decoder
from solar.network.head import body_of
from solar.network.isolation import family_of, in_one_pass, layout_of
from solar.network.kernels.choice import Way
from support.accelerated import Shape

Rows = Iterator[tuple[str, dict[str, Any]]]
SMALL = Shape("", 2, 256, 512, 4, 2, 1024, 1, 512)

LENGTHS = [70, 33, 1, 90, 62]


def ways(device: torch.device) -> Rows:
    """Hidden states and gradients of every way, against the same weights in float64 on the host; and isolation."""
    ids = torch.randint(3, 1000, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")
    exact_network = SMALL.network(cpu, torch.float64, NAME).eval()
    exact = _states_and_gradients(exact_network, Way.segments, ids, True)
    half, single = torch.bfloat16, torch.float32
    for way, dtype in [(Way.segments, single), (Way.flex, single), (Way.flex, half), (Way.varlen, half)]:
        row = f"{way} {str(dtype).removeprefix('torch.')}"
        if way is Way.varlen and device.type == "cpu":
            yield row, {"not_run": "needs CUDA"}
            continue
        network = SMALL.network(cpu, torch.float64, NAME).to(device, dtype).eval()
        gradients = not (way is Way.flex and device.type == "cpu")  # FlexAttention has no backward pass there
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


def shared_prompts(device: torch.device) -> Rows:
    """A row in which two answers share a prompt, through the decoder as training calls it, against float64."""
    ids = torch.randint(3, 1000, (150,), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(100), torch.arange(60, 110)])
    segments = [Segment(100), Segment(50, (0, 60))]
    network = SMALL.network(torch.device("cpu"), torch.float64, NAME).eval()
    with torch.no_grad():
        exact = Decoder(network)(ids, positions, segments)[0]
        decoder = Decoder(network.to(device, torch.bfloat16))
        states = decoder(ids.to(device), positions.to(device), segments)[0]
    yield "two answers", {"states": _error(states, exact), "attention": "; ".join(decoder.choices)}


def adapters(device: torch.device) -> Rows:
    """LoRA and QLoRA: states and gradients of the adapters, against the same (rounded) weights in float64."""
    dtype, way = (torch.float32, Way.segments) if device.type == "cpu" else (torch.bfloat16, Way.varlen)
    ids = torch.randint(3, 1000, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    for base in (None, *FrozenBase):
        row = "LoRA" if base is None else f"QLoRA {base}"
        if base is not None and find_spec("bitsandbytes") is None:
            yield row, {"not_run": "bitsandbytes is not installed"}
            continue
        network = _adapted(SMALL.network(torch.device("cpu"), dtype, NAME), base, device).to(device).eval()
        exact = _in_float64(network)
        values = [_with_gradients(model, place, ids) for model, place in ((network, way), (exact, Way.segments))]
        yield row, {name: _error(value, values[1][name]) for name, value in values[0].items()}


def _adapted(network: Any, base: FrozenBase | None, device: torch.device) -> Any:
    """With an adapter that changes something: B is 0 at first."""
    from solar.network.quantised.base import quantise

    if base is not None:
        precision = Precision.fp32 if network.dtype is torch.float32 else Precision.bf16_true
        quantise(network, base, precision, device)
    add_adapter(network, AdapterConfig(rank=8), seed=0)
    draw = torch.Generator().manual_seed(2)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=draw) * 0.02)
    return network if base is None else network.to(network.dtype)


def _in_float64(network: Any) -> Any:
    """The same function in float64 on the host: a base in few bits is replaced by what its layers multiply with."""
    from solar.network.quantised.base import dequantised

    exact = SMALL.network(torch.device("cpu"), torch.float64, NAME).eval()
    add_adapter(exact, AdapterConfig(rank=8), seed=0)
    weights = network.state_dict() | dequantised(network)
    exact.load_state_dict({name: weight.double().cpu() for name, weight in weights.items()})
    return exact.double()


def _with_gradients(network: Any, way: Way, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    states_TD = _states(network, way, ids)
    weights_TD = torch.randn(states_TD.shape, generator=torch.Generator().manual_seed(1)).to(states_TD)
    (states_TD * weights_TD).sum().backward()
    layer = body_of(network).layers[0].self_attn.k_proj
    gradients = {f"{part}_gradient": getattr(layer, f"lora_{part}").solar.weight.grad for part in "AB"}
    return {"states": states_TD.detach(), **gradients}


def fused_loss(device: torch.device) -> Rows:
    """The loss of the trained positions and its gradients: liger's kernel, and ours, against float64."""
    if find_spec("liger_kernel") is None or device.type != "cuda":
        yield "liger", {"not_run": "needs CUDA" if device.type != "cuda" else "liger-kernel is not installed"}
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 256, generator=draw, dtype=torch.float64) for size in (300, 1024))
    targets = torch.randint(0, 1024, (300,), generator=draw)
    exact = _loss_and_gradients(hidden, weight, targets)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    moved = hidden.to(device, dtype), weight.to(device, dtype), targets.to(device)
    names = ("loss", "hidden_gradient", "head_gradient")
    for row, on in (("ours", "none"), ("liger", "cuda")):
        if row == "liger" and (device.type != "cuda" or find_spec("liger_kernel") is None):
            continue
        with _liger_on(on):
            values = _loss_and_gradients(*moved)
        yield row, {name: _error(*pair) for name, pair in zip(names, zip(values, exact, strict=True), strict=True)}


def _loss_and_gradients(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    hidden, weight, targets = inputs
    hidden, weight = (tensor.detach().clone().requires_grad_() for tensor in (hidden, weight))
    if hidden.dtype is torch.float64:
        loss = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    else:
        loss, _ = cross_entropy_sum(hidden, weight, targets)
    return (loss.detach(), *torch.autograd.grad(loss, (hidden, weight)))


class _liger_on:  # noqa: N801  (a context manager, read as a word)
    """Liger's kernel is taken on this kind of device."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __enter__(self) -> None:
        from solar.network import liger

        self.before, liger.DEVICE = liger.DEVICE, self.kind

    def __exit__(self, *_: Any) -> None:
        from solar.network import liger

        liger.DEVICE = self.before


def trainings(device: torch.device) -> Rows:
    """Small whole trainings: the same bytes twice and after a stop in deterministic mode; FSDP2 beside one device."""
    from solar.config.root import Strategy, TrainerConfig

    torch.use_deterministic_algorithms(True, warn_only=True)
    precision = Precision.fp32 if device.type == "cpu" else Precision.bf16_true
    place: dict[str, Any] = {"accelerator": "cpu" if device.type == "cpu" else "gpu"}
    if "deterministic" in TrainerConfig.__dataclass_fields__:
        place["deterministic"] = True
    with tempfile.TemporaryDirectory(prefix="accelerator-") as name:
        folder = Path(name)
        SMALL.network(torch.device("cpu"), torch.float32, "sdpa").save_pretrained(folder / "base")
        (folder / "base" / "tokenizer.json").write_text("{}")
        weights = {case: _trained(folder, case, precision, place) for case in ("once", "again", "resumed")}
        same = {case: _same(weights["once"], weights[case]) for case in ("again", "resumed")}
        yield "deterministic mode", {f"{case}_same_bytes": equal for case, equal in same.items()}
        torch.use_deterministic_algorithms(False)
        sharded = _trained(folder, "sharded", precision, place | {"strategy": Strategy.fsdp})
        yield "FSDP2 on one device", {"weights": _farthest(sharded, weights["once"])}
    torch.use_deterministic_algorithms(False)


def _trained(folder: Path, case: str, precision: Precision, place: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights after six steps; `resumed` is stopped after two, and goes on."""
    import signal

    from safetensors.torch import load_file
    from tiny import TinyRow, settings, train_rows

    from solar.errors import Interrupted
    from solar.training.interrupt import StopRequest
    from solar.training.modules.next_token import ContinuedPretraining

    stop = StopRequest()

    class Stopping(ContinuedPretraining):
        def training_step(self, step: Any, batch_idx: int) -> None:
            super().training_step(step, batch_idx)
            if case == "resumed" and self.steps_done == 2:
                stop.received = signal.SIGTERM

    random, rows = np.random.default_rng(3), []
    for number in range(8):
        ids = random.integers(3, 1000, sum(LENGTHS))
        rows.append(TinyRow(ids, ids.copy(), LENGTHS, [number] * len(LENGTHS)))
    config = PretrainConfig(**settings(duration="6 steps", precision=precision))
    arguments: Any = (rows, config, folder / "base", folder / case)
    if case == "resumed":
        try:
            train_rows(*arguments, module=Stopping, stop=stop, **place)
        except Interrupted:
            stop = StopRequest()
    train_rows(*arguments, **place)
    return load_file(folder / case / "model" / "model.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


def _farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of two weights."""
    return max(float((weight - other[name]).abs().max()) for name, weight in one.items())
