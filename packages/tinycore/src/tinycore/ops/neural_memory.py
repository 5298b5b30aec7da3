"""The memory of Titans (arXiv 2501.00663): a small network M whose weights are written at test time, by hand.

    depth 1    M(x) = W x                               weights (h, h) = W
    depth 2    M(x) = x + D^T silu(U x)                 weights (2 E h, h) = U over D, E the expansion

Gradients of the inner loss are written out in ordinary operations: the outer gradient goes through them, and all sequences
and heads are one batched product. `weights` are (..., R, h); x, keys, values (..., C, h).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-6


def memory_rows(depth: int, expansion: int, width: int) -> int:
    """R, the rows of the weights of one memory between `width` channels."""
    return width if depth == 1 else 2 * expansion * width


def read(weights: Tensor, x: Tensor, depth: int) -> Tensor:
    """M(x), (..., C, h)."""
    if depth == 1:
        return x @ weights.mT
    up, down = weights.chunk(2, dim=-2)
    return x + F.silu(x @ up.mT) @ down


def descent(
    weights: Tensor, keys: Tensor, values: Tensor, steps: Tensor, depth: int, self_modifying: bool = False
) -> Tensor:
    """sum_t steps_t * d/dM |M(k_t) - v_t|^2 at `weights`, (..., R, h); steps (..., C, 1), keys of length 1.

    self_modifying: with the delta rule's forgetting (arXiv 2512.24695) added, sum_t steps_t * W x_t x_t^T / |x_t|^2 for
    each matrix W and the input x_t that it has for k_t: the memory unlearns what it answers to x_t now.
    """
    if depth == 1:
        found = keys @ weights.mT
        error = 2 * (found - values)
        if self_modifying:
            error = error + found
        return error.mT @ (steps * keys)
    up, down = weights.chunk(2, dim=-2)
    inner = keys @ up.mT  # (..., C, E h)
    hidden = F.silu(inner)
    found = hidden @ down
    error = 2 * (keys + found - values)
    error_inner = _ThroughSilu.apply(error @ down.mT, inner)
    if self_modifying:
        error = error + found / (hidden.square().sum(-1, keepdim=True) + EPS)
        error_inner = error_inner + inner
    return torch.cat([error_inner.mT @ (steps * keys), hidden.mT @ (steps * error)], dim=-2)


def bounded(change: Tensor, limit: float) -> Tensor:
    """change (..., R, h) made shorter: of Frobenius norm n, it has limit * tanh(n / limit), nearly n where that is small."""
    norm = (change.square().sum((-2, -1), keepdim=True) + EPS**2).sqrt()
    return change * (limit * (norm / limit).tanh() / norm)


class _ThroughSilu(torch.autograd.Function):
    """grad * silu'(x), which keeps its two arguments only. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.silu_backward(grad, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        gate = x.sigmoid()
        curvature = gate * (1 - gate) * (2 + x * (1 - 2 * gate))
        return torch.ops.aten.silu_backward(outer, x), outer * grad * curvature
