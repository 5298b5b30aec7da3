"""RMSNorm (arXiv 1910.07467): y = x / sqrt(mean(x^2) + eps) * g, per position, computed in at least float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinycore.ops.rms_norm import rms_norm


class RMSNorm(nn.Module):
    """(..., width) -> (..., width), in the input's dtype unless another is asked for. `affine=False` has no gain g."""

    def __init__(self, width: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return rms_norm(x, self.weight, self.eps, dtype)
