"""The torch path of rotary_qk_norm: plain tensor operations under autograd, which torch.compile fuses."""

import torch


def rotary_norm(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, weight: torch.Tensor | None, eps: float | None
) -> torch.Tensor:
    """x (B, T, H, D) normed over D, then rotated by cos, sin (B, T, D / 2)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    value = x.to(wide)
    if eps is not None:
        value = value * torch.rsqrt(value.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        value = value * weight
    real, imaginary = value.chunk(2, dim=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1)
    return turned.to(x.dtype)
