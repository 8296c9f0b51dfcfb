"""Losses: equal to the plain formula, whatever the chunk, and never with all logits in memory."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from solar.network import cross_entropy as losses
from solar.network.cross_entropy import KEPT_CHUNKS, cross_entropy_sum, segment_sums, token_logps


def _problem(n=50, d=8, v=31, dtype=torch.float64):
    torch.manual_seed(1)
    hidden = torch.randn(n, d, dtype=dtype, requires_grad=True)
    weight = torch.randn(v, d, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(0, v, (n,))


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_loss_and_gradients_equal_the_plain_formula_for_any_chunk(chunk):
    hidden, weight, targets = _problem(dtype=torch.float32)
    expected = cross_entropy(hidden @ weight.T, targets, reduction="sum") / 50
    wanted = torch.autograd.grad(expected, (hidden, weight))
    loss, _ = cross_entropy_sum(hidden, weight, targets, chunk=chunk)
    found = torch.autograd.grad(loss / 50, (hidden, weight))
    assert loss.item() / 50 == pytest.approx(expected.item(), rel=1e-6)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_z_loss_weighs_the_squared_normalizer():
    hidden, weight, targets = _problem(dtype=torch.float32)
    logits = hidden @ weight.T
    expected = cross_entropy(logits, targets, reduction="sum") + 0.1 * logits.logsumexp(-1).square().sum()
    wanted = torch.autograd.grad(expected, (hidden, weight))
    loss, penalty = cross_entropy_sum(hidden, weight, targets, z_loss=0.1, chunk=9)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(penalty, 0.1 * logits.logsumexp(-1).square().sum())
    for mine, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("loss", ["sum", "each"])
def test_a_bias_and_a_soft_cap_are_part_of_the_logits_and_of_every_gradient(loss, softcap):
    hidden, weight, targets = _problem(dtype=torch.float32)
    bias, scale = torch.randn(31, requires_grad=True), torch.arange(50.0)
    logits = hidden @ weight.T + bias
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    expected = logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    found = token_logps(hidden, weight, targets, bias_V=bias, softcap=softcap, chunk=7)
    if loss == "sum":
        expected = -expected.sum()
        found, _ = cross_entropy_sum(hidden, weight, targets, bias_V=bias, softcap=softcap, chunk=7)
    torch.testing.assert_close(found, expected)
    of = hidden, weight, bias
    wanted = torch.autograd.grad((expected * scale).sum() if expected.ndim else expected, of)
    gradients = torch.autograd.grad((found * scale).sum() if found.ndim else found, of)
    for mine, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_uniform_model_loses_ln_of_the_vocabulary():
    loss, _ = cross_entropy_sum(torch.zeros(3, 2), torch.ones(4, 2), torch.tensor([0, 1, 3]))
    assert loss.item() / 3 == pytest.approx(math.log(4))


def test_no_trained_position_gives_zero_loss_and_zero_gradients():
    hidden = torch.zeros(0, 2, requires_grad=True)
    weight = torch.ones(4, 2, requires_grad=True)
    loss, _ = cross_entropy_sum(hidden, weight, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and not weight.grad.any()


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_the_same():
    hidden, weight, targets = _problem(dtype=torch.float32)
    (wanted,) = torch.autograd.grad(cross_entropy_sum(hidden, weight, targets)[0], hidden)
    (found,) = torch.autograd.grad(cross_entropy_sum(hidden, weight.detach(), targets)[0], hidden)
    assert torch.equal(found, wanted)


def test_bfloat16_autocast_stays_close_to_float32():
    hidden, weight, targets = _problem(dtype=torch.float32)
    exact, _ = cross_entropy_sum(hidden, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = cross_entropy_sum(hidden, weight, targets)
    assert rounded.dtype is torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-2) and rounded.item() != exact.item()


@pytest.mark.parametrize("chunk", [3, 100])
def test_token_logps_equal_log_softmax_with_gradients(chunk):
    hidden, weight, targets = _problem(dtype=torch.float32)
    expected = (hidden @ weight.T).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    found = token_logps(hidden, weight, targets, chunk=chunk)
    torch.testing.assert_close(found, expected)
    scale = torch.arange(50.0)
    wanted = torch.autograd.grad((expected * scale).sum(), (hidden, weight))
    for mine, theirs in zip(torch.autograd.grad((found * scale).sum(), (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", [0, 2, 99])
def test_kept_and_recomputed_logits_give_the_same_gradients_to_the_bit(monkeypatch, kept):
    found = []
    for chunks in (KEPT_CHUNKS, kept):
        monkeypatch.setattr(losses, "KEPT_CHUNKS", chunks)
        hidden, weight, targets = _problem(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            logps = token_logps(hidden, weight, targets, chunk=7)
        found.append([logps, *torch.autograd.grad((logps * torch.arange(50.0)).sum(), (hidden, weight))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_log_probabilities_of_no_tokens_have_gradients_of_zero():
    hidden, weight = torch.zeros(0, 4, requires_grad=True), torch.ones(9, 4, requires_grad=True)
    logps = token_logps(hidden, weight, torch.zeros(0, dtype=torch.long))
    logps.sum().backward()
    assert logps.shape == (0,) and hidden.grad.shape == (0, 4) and not weight.grad.any()


@pytest.mark.parametrize("loss", [lambda *of: cross_entropy_sum(*of)[0], lambda *of: token_logps(*of).sum()])
def test_all_logits_are_never_held_at_once(loss):
    rows, vocabulary = 2048, 16384
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    hidden = torch.randn(rows, 16, requires_grad=True)
    weight = torch.randn(vocabulary, 16, requires_grad=True)
    targets = torch.randint(0, vocabulary, (rows,))
    with Watch():
        loss(hidden, weight, targets).backward()
    assert largest <= rows * vocabulary / 4


def test_segments_without_members_sum_to_zero():
    sums = segment_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 4)
    assert sums.tolist() == [2.0, 0.0, 5.0, 0.0]
