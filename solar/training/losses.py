"""Language-model losses from hidden states, without ever holding the logits of all positions.

Shapes: N trained positions, D hidden size, V vocabulary.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.checkpoint import checkpoint

from solar.training import liger

IGNORE = -100
"""The label of a position that is not trained."""


def chunk_rows(vocab_size: int, device: torch.device) -> int:
    """Positions whose float32 logits fill about 16 MB on a CPU (its caches), 256 MB on a GPU.

    >>> chunk_rows(4096, torch.device("cpu")), chunk_rows(32000, torch.device("cpu"))
    (1024, 131)
    """
    numbers = 2**26 if device.type == "cuda" else 2**22
    return max(64, numbers // vocab_size)


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The number format a matrix product takes here: autocast's, or the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


class _LinearCrossEntropy(torch.autograd.Function):
    """Both gradients are taken while a chunk's logits are at hand, so the backward pass has no matrix product left."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(hidden_ND)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        loss = hidden_ND.new_zeros((), dtype=torch.float32)
        penalty = hidden_ND.new_zeros((), dtype=torch.float32)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight = weight_VD.to(dtype)
            for start in range(0, len(targets_N), chunk):
                rows = slice(start, start + chunk)
                hidden, targets = hidden_ND[rows].to(dtype), targets_N[rows, None]
                logits = (hidden @ weight.T).float()
                normalizer = logits.logsumexp(-1, keepdim=True)
                loss += (normalizer - logits.gather(-1, targets)).sum()
                if z_loss:
                    penalty += z_loss * normalizer.square().sum()
                if grad_hidden_ND is None and grad_weight_VD is None:
                    continue
                grad = logits.sub_(normalizer).exp_()
                if z_loss:
                    grad.mul_(1 + 2 * z_loss * normalizer)
                grad.scatter_add_(-1, targets, grad.new_full((1, 1), -1.0).expand_as(targets))
                grad = grad.to(dtype)
                if grad_hidden_ND is not None:
                    grad_hidden_ND[rows] = grad @ weight
                if grad_weight_VD is not None:
                    if dtype is torch.float32:
                        grad_weight_VD.addmm_(grad.T, hidden)
                    else:
                        grad_weight_VD += grad.T @ hidden
        ctx.gradients = grad_hidden_ND, grad_weight_VD, weight_VD.dtype  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(penalty)  # type: ignore[attr-defined]
        return loss + penalty, penalty

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, dtype = ctx.gradients  # type: ignore[attr-defined]
        del ctx.gradients  # type: ignore[attr-defined]
        return (
            hidden.mul_(grad) if hidden is not None else None,
            weight.mul_(grad).to(dtype) if weight is not None else None,
            None,
            None,
            None,
        )


def cross_entropy_sum(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, z_loss: float = 0.0, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sum over positions of the next-token loss in nats, and of the z-loss that is part of it.

    The logits are `hidden_ND @ weight_VD.T`, one chunk of positions at a time; every target must be a token id (choose
    the trained positions first). `z_loss` weighs the squared log-normalizer (PaLM, arXiv 2204.02311, section 5). On
    CUDA liger's kernel computes what has no `z_loss` and no `chunk`, where it is installed.

    >>> hidden, weight = torch.zeros(3, 2), torch.ones(4, 2)
    >>> cross_entropy_sum(hidden, weight, torch.tensor([0, 1, 3]))[0] / 3  # uniform over 4 tokens: ln 4
    tensor(1.3863)
    """
    if not z_loss and chunk is None and liger.takes(hidden_ND):
        return liger.fused_cross_entropy_sum(hidden_ND, weight_VD, targets_N), hidden_ND.new_zeros(())
    chunk = chunk or chunk_rows(len(weight_VD), weight_VD.device)
    loss: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, chunk, z_loss)  # type: ignore[no-untyped-call]
    return loss


def token_logps(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, chunk: int | None = None) -> Tensor:
    """Log-probability of each target, [N] in float32; for losses that are not linear in these.

    More than one chunk: the backward pass recomputes each chunk's logits instead of keeping them.
    """
    chunk = chunk or chunk_rows(len(weight_VD), weight_VD.device)
    if len(targets_N) <= chunk or not torch.is_grad_enabled():
        parts = [
            _chunk_logps(hidden_ND[i : i + chunk], weight_VD, targets_N[i : i + chunk])
            for i in range(0, len(targets_N), chunk)
        ]
    else:
        parts = [
            checkpoint(
                _chunk_logps,
                hidden_ND[i : i + chunk],
                weight_VD,
                targets_N[i : i + chunk],
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for i in range(0, len(targets_N), chunk)
        ]
    return torch.cat(parts) if parts else hidden_ND.sum(-1).float()


def _chunk_logps(hidden: Tensor, weight_VD: Tensor, targets: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight_VD).float()
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


def segment_sums(values_N: Tensor, segments_N: Tensor, count: int) -> Tensor:
    """Sum of the values of each segment, [count].

    >>> segment_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 1]), 3)
    tensor([1., 6., 0.])
    """
    return values_N.new_zeros(count).index_add(0, segments_N, values_N)
