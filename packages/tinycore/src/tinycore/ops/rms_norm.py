"""RMSNorm as an operation: x / sqrt(mean(x^2) + eps) * weight over the last axis.

The backward pass is written out: it keeps x and one number a row, where autograd keeps three tensors of x's size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5  # of norms that a module applies without gains of its own


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """Normalise x (..., width) by its root mean square; weight (width,) or None.

    Computed in at least float32, returned in `dtype`, by default x's. Differentiable once.
    """
    return _RMSNorm.apply(x, weight, eps, dtype or x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        y = wide * inverse
        if weight is not None:
            y = y * weight
        ctx.save_for_backward(x, weight, inverse)
        return y.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, inverse = ctx.saved_tensors
        normed = x.to(inverse.dtype) * inverse
        grad = grad.to(inverse.dtype)
        grad_weight = None
        if weight is not None:
            grad_weight = (grad * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
            grad = grad * weight
        # the part of the gradient along x itself changes the scale, which the norm takes away again
        along = (grad * normed).mean(-1, keepdim=True)
        return ((grad - normed * along) * inverse).to(x.dtype), grad_weight, None, None
