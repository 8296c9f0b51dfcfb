"""Language-model losses from hidden states, computed without holding the logits of all positions at once.

Shapes: N trained positions, D hidden size, V vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import linear

from solar.network import liger

KEPT_CHUNKS = 2
"""Chunks of logits kept for the backward pass: in float32 about 60 MB on a CPU, 512 MB on a GPU."""


def chunk_rows(positions: int, vocab_size: int, device: torch.device) -> int:
    """Positions of equal chunks whose float32 logits fill at most 30 MB on a CPU, 256 MB on a GPU; at least 128.

    glibc returns blocks of 32 MB and more to the system at once, and fetches them again page by page.

    >>> chunk_rows(1000, 4096, torch.device("cpu")), chunk_rows(1000, 32000, torch.device("cpu"))
    (1000, 200)
    """
    numbers = 2**26 if device.type == "cuda" else 7_500_000
    most = max(128, numbers // vocab_size)
    return max(1, math.ceil(positions / max(1, math.ceil(positions / most))))


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The number format of matrix products with this tensor: autocast's, or the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def cap(logits: Tensor, softcap: float) -> Tensor:
    """Logits under a soft bound: c tanh(logit / c) (Gemma 2, arXiv 2408.00118, section 2)."""
    return (logits / softcap).tanh_().mul_(softcap)


def _slope(capped: Tensor, softcap: float) -> Tensor:
    """d capped / d logits: 1 - tanh^2."""
    return (capped / softcap).square_().neg_().add_(1)


class _LinearCrossEntropy(torch.autograd.Function):
    """All gradients are computed while a chunk's logits are in memory; the backward pass has no matrix product left."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        chunk: int,
        z_loss: float,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(hidden_ND)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]  # type: ignore[attr-defined]
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and wants_bias else None
        wants_any = wants_hidden or wants_weight or wants_bias
        loss = hidden_ND.new_zeros((), dtype=torch.float32)
        penalty = hidden_ND.new_zeros((), dtype=torch.float32)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight, bias = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
            # All chunks use the same memory; fetching fresh memory takes as long as the computation in it.
            products_CV = hidden_ND.new_empty((min(chunk, len(targets_N)), len(weight)), dtype=dtype)
            logps_CV = torch.empty_like(products_CV, dtype=torch.float32)
            minus_one = logps_CV.new_full((1, 1), -1.0)
            for start in range(0, len(targets_N), chunk):
                rows = slice(start, start + chunk)
                hidden, targets = hidden_ND[rows].to(dtype), targets_N[rows, None]
                logits = _product(hidden, weight, bias, products_CV[: len(hidden)])
                if softcap is not None:
                    logits = cap(logits.float(), softcap)
                logps = torch.log_softmax(logits, -1, torch.float32, out=logps_CV[: len(hidden)])
                of_targets = logps.gather(-1, targets)
                loss -= of_targets.sum()
                if z_loss:
                    normalizer = logits.gather(-1, targets) - of_targets
                    penalty += z_loss * normalizer.square().sum()
                if not wants_any:
                    continue
                slope = None if softcap is None else _slope(logits, softcap)
                grad = logps.exp_()
                if z_loss:
                    grad.mul_(1 + 2 * z_loss * normalizer)
                grad.scatter_add_(-1, targets, minus_one.expand_as(targets))
                if slope is not None:
                    grad.mul_(slope)
                if grad_bias_V is not None:
                    grad_bias_V += grad.sum(0)
                grad = grad if dtype is torch.float32 else products_CV[: len(hidden)].copy_(grad)
                if grad_hidden_ND is not None:
                    grad_hidden_ND[rows] = grad @ weight
                if grad_weight_VD is not None:
                    add_product(grad_weight_VD, grad.T, hidden)
        ctx.gradients = grad_hidden_ND, grad_weight_VD, grad_bias_V, weight_VD.dtype  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(penalty)  # type: ignore[attr-defined]
        return loss + penalty, penalty

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias, dtype = ctx.gradients  # type: ignore[attr-defined]
        del ctx.gradients  # type: ignore[attr-defined]
        return (
            hidden.mul_(grad) if hidden is not None else None,
            weight.mul_(grad).to(dtype) if weight is not None else None,
            bias.mul_(grad).to(dtype) if bias is not None else None,
            *(None,) * 4,
        )


def cross_entropy_sum(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over positions of the next-token loss in nats, and of the z-loss that is part of it.

    The logits are `hidden_ND @ weight_VD.T + bias_V` under the soft bound `softcap`, one chunk of positions at a time.
    Every target must be a token id, so select the trained positions first. `z_loss` weighs the squared log-normalizer
    (PaLM, arXiv 2204.02311, section 5). On CUDA, liger's kernel (if installed) computes losses without bias, cap and
    z-loss.

    >>> hidden, weight = torch.zeros(3, 2), torch.ones(4, 2)
    >>> cross_entropy_sum(hidden, weight, torch.tensor([0, 1, 3]))[0] / 3  # uniform over 4 tokens: ln 4
    tensor(1.3863)
    """
    product_alone = bias_V is None and softcap is None and not z_loss and chunk is None
    if product_alone and liger.takes(hidden_ND):
        return liger.fused_cross_entropy_sum(hidden_ND, weight_VD, targets_N), hidden_ND.new_zeros(())
    chunk = chunk or chunk_rows(len(targets_N), len(weight_VD), weight_VD.device)
    loss: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, targets_N, chunk, z_loss, softcap
    )
    return loss


def token_logps(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Log-probability of each target, [N] in float32; for losses that are not linear in log-probabilities.

    The backward pass needs all logits again: those of the first chunks are kept, the others are computed again.
    """
    chunk = chunk or chunk_rows(len(targets_N), len(weight_VD), weight_VD.device)
    logps_N: Tensor = _LinearTokenLogps.apply(hidden_ND, weight_VD, bias_V, targets_N, chunk, softcap)  # type: ignore[no-untyped-call]
    return logps_N


class _LinearTokenLogps(torch.autograd.Function):
    """d logp / d logits = one-hot of the target - softmax, written over the logits themselves."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        chunk: int,
        softcap: float | None,
    ) -> Tensor:
        ctx.chunk, ctx.softcap, ctx.dtype, ctx.kept = chunk, softcap, compute_dtype(hidden_ND), []
        chunks_kept = KEPT_CHUNKS if any(ctx.needs_input_grad) else 0
        logps_N = hidden_ND.new_empty(len(targets_N), dtype=torch.float32)
        normalizer_N = torch.empty_like(logps_N)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight, bias = weight_VD.to(ctx.dtype), None if bias_V is None else bias_V.to(ctx.dtype)
            for start in range(0, len(targets_N), chunk):
                rows = slice(start, start + chunk)
                rounded = linear(hidden_ND[rows].to(ctx.dtype), weight, bias)
                logits = rounded.float() if softcap is None else cap(rounded.float(), softcap)
                normalizer_N[rows] = logits.logsumexp(-1)
                logps_N[rows] = logits.gather(-1, targets_N[rows, None]).squeeze(-1) - normalizer_N[rows]
                if len(ctx.kept) < chunks_kept:
                    ctx.kept.append(rounded)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, normalizer_N)
        return logps_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden_ND, weight_VD, bias_V, targets_N, normalizer_N = ctx.saved_tensors
        kept: list[Tensor] = ctx.kept
        del ctx.kept
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight, bias = weight_VD.to(ctx.dtype), None if bias_V is None else bias_V.to(ctx.dtype)
            for start in range(0, len(targets_N), ctx.chunk):
                rows = slice(start, start + ctx.chunk)
                hidden = hidden_ND[rows].to(ctx.dtype)
                logits, slope = (kept.pop(0) if kept else linear(hidden, weight, bias)).float(), None
                if ctx.softcap is not None:
                    logits = cap(logits, ctx.softcap)
                    slope = _slope(logits, ctx.softcap)
                grad = logits.sub_(normalizer_N[rows, None]).exp_().mul_(-grad_N[rows, None])
                grad = grad.scatter_add_(-1, targets_N[rows, None], grad_N[rows, None])
                if slope is not None:
                    grad.mul_(slope)
                if grad_bias_V is not None:
                    grad_bias_V += grad.sum(0)
                grad = grad.to(ctx.dtype)
                if grad_hidden_ND is not None:
                    grad_hidden_ND[rows] = grad @ weight
                if grad_weight_VD is not None:
                    add_product(grad_weight_VD, grad.T, hidden)
        of_parameters = [None if grad is None else grad.to(weight_VD.dtype) for grad in (grad_weight_VD, grad_bias_V)]
        return grad_hidden_ND, *of_parameters, None, None, None


def _product(left_ND: Tensor, right_VD: Tensor, bias_V: Tensor | None, out_NV: Tensor) -> Tensor:
    if bias_V is None:
        return torch.mm(left_ND, right_VD.T, out=out_NV)
    return torch.addmm(bias_V, left_ND, right_VD.T, out=out_NV)


def add_product(total_VD: Tensor, left_VN: Tensor, right_ND: Tensor) -> None:
    """Add a matrix product to a sum in float32, whatever number format the product is computed in."""
    if right_ND.dtype is torch.float32:
        total_VD.addmm_(left_VN, right_ND)
    else:
        total_VD += left_VN @ right_ND


def segment_sums(values_N: Tensor, segments_N: Tensor, count: int) -> Tensor:
    """Sum of the values of each segment, [count].

    >>> segment_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 1]), 3)
    tensor([1., 6., 0.])
    """
    return values_N.new_zeros(count).index_add(0, segments_N, values_N)
