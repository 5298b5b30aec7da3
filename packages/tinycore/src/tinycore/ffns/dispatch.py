"""Every token to the experts that were chosen for it, each expert called once on its own tokens.

Tokens are sorted by expert, so that the experts compute N k rows in all and none computes a token it was not chosen
for. There is no capacity: an expert takes as many tokens as are sent to it, so nothing a token gets depends on the
others. Rows are moved by permutations whose gradient is the inverse permutation: no sums over indices, hence the same
bits on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def dispatch(x: Tensor, chosen: Tensor, weights: Tensor, experts: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """sum over j of weights[:, j] * experts[chosen[:, j]](x), (N, D), for x (N, D), chosen (N, k) int64, weights (N, k).

    An expert that nobody chose is called with no rows: its parameters get gradients that are zero, not missing.
    """
    count = chosen.shape[1]
    order = chosen.flatten().argsort(stable=True)  # (N k,) assignments, those of the first expert first
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    sizes = torch.bincount(chosen.flatten(), minlength=len(experts)).tolist()
    repeated = x if count == 1 else x.repeat_interleave(count, 0)
    rows = _Permuted.apply(repeated, order, back).split(sizes)
    results = torch.cat([expert(part) for expert, part in zip(experts, rows, strict=True)])
    y = _Permuted.apply(results, back, order).view(len(x), count, -1)
    return (y * weights[..., None].to(y.dtype)).sum(1)


class _Permuted(torch.autograd.Function):
    """x[order] for a permutation and its inverse `back`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None
