"""The numbers of BitNet b1.58 (arXiv 2402.17764), defined once for training and for packed inference.

    weight:      scale = max(mean |W|, 1e-5)                  ternary = clamp(round(W / scale), -1, 1)
    activation:  largest = max(max |x_row|, 1e-5)             codes = clamp(round(x (127 / largest)), -128, 127)
                 step = largest / 127
    product:     y = ((codes . ternary) step) scale + bias    in this order, integers first

Rounding is half to even; everything that is not an integer is float32 (float64 for float64 inputs). The integer
sum is exact, so every implementation that follows the order gives the same bits.
"""

import torch

SMALLEST = 1e-5
STEPS = 127.0


def weight_scale(weight: torch.Tensor) -> torch.Tensor:
    """max(mean |W|, 1e-5) as a scalar tensor. Summed in float64, so that CPU and GPU round to the same float32."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    mean = weight.abs().sum(dtype=torch.float64) / weight.numel()
    return mean.clamp(min=SMALLEST).to(wide)


def ternary_of(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """clamp(round(W / scale), -1, 1) as int8, in W's shape."""
    return (weight.to(scale.dtype) / scale).round_().clamp_(-1, 1).to(torch.int8)


def normed(x: torch.Tensor, norm_weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x (M, K) / sqrt(mean(x^2) + eps) * norm_weight in float32 (float64), and the inverse root (M,)."""
    value = x.to(torch.promote_types(x.dtype, torch.float32))
    inverse_root = (value.square().mean(-1) + eps).rsqrt()
    return value * inverse_root[:, None] * norm_weight.to(value.dtype), inverse_root


def codes_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (M, K) -> codes int8 (M, K) and the value of one step (M,) in float32 (float64)."""
    value = x.to(torch.promote_types(x.dtype, torch.float32))
    largest = value.abs().amax(-1).clamp_(min=SMALLEST)
    codes = (value * (STEPS / largest)[:, None]).round_().clamp_(-128, 127).to(torch.int8)
    return codes, largest / STEPS
