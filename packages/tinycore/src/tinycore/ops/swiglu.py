"""The gate of SwiGLU as an operation, silu(gate) * up, alone or with the linear that follows it.

Both keep gate and up for the backward pass and no third tensor of their size: the product is made again there, a pass
over memory instead of a third of what a feed-forward keeps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinycore.ops.precision import product_dtype


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """gate and up, both (..., hidden) of one dtype -> (..., hidden). Differentiable once."""
    return _SwiGLU.apply(gate, up)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), grad * F.silu(gate)


def swiglu_linear(gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    """gate and up, both (..., hidden) of one dtype, weight (outputs, hidden) -> (silu(gate) * up) weight^T (..., outputs).

    In the autocast dtype where autocast is on. Differentiable once.
    """
    dtype = product_dtype(gate)
    return _SwiGLULinear.apply(gate.to(dtype), up.to(dtype), weight.to(dtype))


class _SwiGLULinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return F.linear(F.silu(gate) * up, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        gate, up, weight = ctx.saved_tensors
        opened = F.silu(gate)
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = grad.flatten(0, -2).t() @ (opened * up).flatten(0, -2)
        grad = grad @ weight
        return torch.ops.aten.silu_backward(grad * up, gate), grad * opened, grad_weight
