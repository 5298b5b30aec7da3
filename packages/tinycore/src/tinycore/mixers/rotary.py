"""Rotary position embedding (RoPE, arXiv 2104.09864), half-split layout.

The head's channels are split into two halves (a, b); pair i is rotated by the angle position * theta^(-2i / head_dim):

    (a_i, b_i) -> (a_i cos - b_i sin, b_i cos + a_i sin)

so q . k depends on the difference of positions only. Angles and the rotation are computed in at least float32. Where only
the head's first channels turn (partial RoPE, as in GPT-NeoX), they are a smaller head: their number stands for head_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinycore.context import Context


def rotary_tables(ctx: Context, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of every position's angles, each (B or 1, 1, T, head_dim / 2), shared by all layers of a pass."""
    key = ("rotary", head_dim, theta, dtype)
    tables = ctx.memo.get(key)
    if tables is None:
        compute = torch.promote_types(dtype, torch.float32)
        pairs = torch.arange(0, head_dim, 2, device=ctx.positions.device, dtype=compute)
        angles = ctx.positions[:, None, :, None].to(compute) * theta ** (-pairs / head_dim)
        tables = ctx.memo[key] = (angles.cos(), angles.sin())
    return tables


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate x (B, heads, T, head_dim) by its positions' angles, in x's dtype. Differentiable once.

    Tables for fewer channels than x has turn the first ones and leave the others.
    """
    turned = 2 * tables[0].shape[-1]
    if turned == x.shape[-1]:
        return _Rotate.apply(x, *tables)
    return torch.cat([_Rotate.apply(x[..., :turned], *tables), x[..., turned:]], dim=-1)


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back, so nothing but the tables is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
