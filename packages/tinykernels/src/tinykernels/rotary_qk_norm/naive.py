"""The oracle of rotary_qk_norm: one head of one token at a time, the rotation as a complex product."""

import torch


def rotary_norm(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, weight: torch.Tensor | None, eps: float | None
) -> torch.Tensor:
    """x (B, T, H, D) normed over D, then rotated by cos, sin (B, T, D / 2)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    batch, length, heads, size = x.shape
    results = []
    for row in range(batch):
        for time in range(length):
            turn = torch.complex(cos[row, time].to(wide), sin[row, time].to(wide))
            for head in range(heads):
                value = x[row, time, head].to(wide)
                if eps is not None:
                    value = value / torch.sqrt(value.square().mean() + eps)
                if weight is not None:
                    value = value * weight.to(wide)
                turned = torch.complex(value[: size // 2], value[size // 2 :]) * turn
                results.append(torch.cat([turned.real, turned.imag]))
    return torch.stack(results).reshape(x.shape).to(x.dtype) if results else torch.zeros_like(x)
