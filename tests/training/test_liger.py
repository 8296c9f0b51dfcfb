"""Liger's fused loss is taken where it is right, and equals ours."""

import json
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from solar.network import liger
from solar.network.cross_entropy import cross_entropy_sum

ON_A_CPU = """
import json, torch
from solar.network import liger
from solar.network.cross_entropy import cross_entropy_sum

torch.manual_seed(0)
hidden, weight = torch.randn(50, 16, requires_grad=True), torch.randn(97, 16, requires_grad=True)
targets = torch.randint(0, 97, (50,))
found = []
for device in ("cuda", "cpu"):  # ours, then liger's
    for dtype in (torch.float32, torch.bfloat16):
        liger.DEVICE = device
        assert liger.takes(hidden) is (device == "cpu")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss, _ = cross_entropy_sum(hidden, weight, targets)
        gradients = torch.autograd.grad(loss / 50, (hidden, weight))
        found.append([loss.item() / 50, *(gradient.flatten().tolist() for gradient in gradients)])
print(json.dumps(found))
"""


@pytest.fixture
def calls(monkeypatch):
    """Liger is installed, and its device is this one; what it is asked for, by name."""
    asked = []

    def kernel(hidden, weight, targets, **options):
        asked.append(options)
        return torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction=options["reduction"])

    functional = ModuleType("liger_kernel.transformers.functional")
    functional.liger_fused_linear_cross_entropy = kernel
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", ModuleType("liger_kernel.transformers"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.functional", functional)
    monkeypatch.setattr(liger, "installed", lambda: True)
    monkeypatch.setattr(liger, "DEVICE", "cpu")
    return asked


def _loss(positions=5, trained=True, **options):
    torch.manual_seed(0)
    hidden, weight = torch.randn(positions, 4, requires_grad=trained), torch.randn(7, 4, requires_grad=True)
    return cross_entropy_sum(hidden, weight, torch.arange(positions), **options)[0]


def test_the_kernel_is_asked_for_the_same_sum(calls, monkeypatch):
    found = _loss()
    assert calls == [{"reduction": "sum", "accum_dtype": torch.float32}]
    monkeypatch.setattr(liger, "DEVICE", "cuda")
    assert found.item() == pytest.approx(_loss().item(), rel=1e-6) and len(calls) == 1


def test_what_the_kernel_does_not_compute_stays_here(calls):
    _loss(z_loss=0.1)
    _loss(chunk=2)
    _loss(positions=0)
    _loss(trained=False).backward()  # liger would leave the head without a gradient
    assert calls == []


def test_nothing_is_asked_of_a_kernel_that_is_not_installed(calls, monkeypatch):
    monkeypatch.setattr(liger, "installed", lambda: False)
    _loss()
    assert calls == []


@pytest.mark.slow
def test_ligers_kernel_gives_our_loss_and_gradients():
    """In Triton's interpreter, which runs the kernel on a CPU."""
    pytest.importorskip("liger_kernel")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", ON_A_CPU], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    single, mixed, liger_single, liger_mixed = json.loads(done.stdout)
    for expected, found, tolerance in ((single, liger_single, 1e-6), (mixed, liger_mixed, 1e-3)):
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(torch.tensor(other), torch.tensor(one), rtol=1e-5, atol=tolerance)
