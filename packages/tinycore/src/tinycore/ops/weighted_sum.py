"""sum_j w_j X_j of tensors of one shape, computed in at least float32.

The backward pass is written out: products with single weights are neither kept nor made twice, so that the sum costs one
pass over each X_j forward and two backward, and keeps the X_j alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def weighted_sum(weights: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """weights (n,) and n tensors of one shape and dtype -> one such tensor. Differentiable once."""
    return _WeightedSum.apply(weights, *tensors)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *tensors)
        dtype = tensors[0].dtype
        wide = torch.promote_types(dtype, torch.float32)
        factors = weights.to(wide).unbind()
        total = tensors[0].to(wide) * factors[0]
        for factor, tensor in zip(factors[1:], tensors[1:], strict=True):
            total.addcmul_(tensor.to(wide), factor)
        return total.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad
        wide = torch.promote_types(grad.dtype, torch.float32)
        slopes = None
        if needed[0]:
            flat = grad.to(wide).flatten()
            slopes = torch.stack([torch.dot(flat, tensor.to(wide).flatten()) for tensor in tensors]).to(weights.dtype)
        factors = weights.to(wide).unbind()
        return slopes, *(
            (grad * factor).to(grad.dtype) if wanted else None
            for factor, wanted in zip(factors, needed[1:], strict=True)
        )
