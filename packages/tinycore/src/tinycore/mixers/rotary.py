"""Rotary position embedding (RoPE, arXiv 2104.09864), half-split layout.

The head's channels are split into two halves (a, b); pair i is rotated by the angle position * theta^(-2i / head_dim):

    (a_i, b_i) -> (a_i cos - b_i sin, b_i cos + a_i sin)

so q . k depends on the difference of positions only. Angles and the rotation are computed in at least float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    """Rotate x (B, heads, T, head_dim) by its positions' angles, in x's dtype."""
    cos, sin = tables
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
