"""RMSNorm as an operation: x / sqrt(mean(x^2) + eps) * weight over the last axis."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Normalise x (..., width) by its root mean square; weight (width,) or None. Computed in at least float32, returned
    in x's dtype."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        y = y * weight
    return y.to(x.dtype)
