"""The product of BitNet b1.58 (arXiv 2402.17764): ternary weights, 8-bit activations, straight-through gradients.

    weight W (O, K):  scale = max(mean |W|, 1e-5), or the median       ternary = clamp(round(W / scale), -1, 1)
    row x (K,):       largest = max(max |x|, 1e-5)                      codes = clamp(round(x (127 / largest)), -128, 127)
                      step = largest / 127
    y = ((codes . ternary) step) scale                                  in this order, integers first

Rounding is half to even. Codes reach 127 in magnitude at most, so the sum of a row stays below 127 K: up to `MOST_INPUTS`
it is below 2^24, every partial sum is an integer that float32 holds, and the product is exact in whatever order it is
added. Training and packed inference then give the same bits, and so does tinykernels, which follows the same definitions.

The backward pass is the straight-through estimator (arXiv 1308.3432) for both roundings: the gradient of a dense product
whose factors are the quantised values, clipping included. It keeps one byte an input and one a weight.
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinycore.ops.precision import product_dtype

Scale = Literal["mean", "median"]

SMALLEST = 1e-5
STEPS = 127.0
MOST_INPUTS = (2**24 - 1) // 127  # 132,104


def bit_linear(x: Tensor, weight: Tensor, scale: Scale = "mean") -> Tensor:
    """x (..., K) and the latent weight (O, K) -> (..., O), in at least float32. Differentiable once.

    The products of the backward pass run in the autocast dtype where autocast is on; the forward's is exact.
    """
    dtype = product_dtype(x)
    # inside, autocast would round the forward's integers to fewer bits than they have
    with torch.autocast(x.device.type, enabled=False) if dtype != x.dtype else contextlib.nullcontext():
        return _BitLinear.apply(x, weight, scale, dtype)


def weight_scale(weight: Tensor, scale: Scale) -> Tensor:
    """max(mean |W| or the lower median of |W|, 1e-5), a scalar tensor of at least float32.

    The mean is summed in float64 where the device has it, so that every device rounds to the same float32.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    magnitudes = weight.abs()
    if scale == "median":
        found = magnitudes.flatten().median()
    else:
        sums = wide if weight.device.type == "mps" else torch.float64
        found = magnitudes.sum(dtype=sums) / magnitudes.numel()
    return found.clamp(min=SMALLEST).to(wide)


def ternary_of(weight: Tensor, scale: Tensor) -> Tensor:
    """clamp(round(W / scale), -1, 1), in the scale's dtype."""
    return (weight.to(scale.dtype) / scale).round().clamp(-1, 1)


def codes_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (..., K) -> integer codes (..., K) and the value of one step (..., 1), both in at least float32."""
    value = x.to(torch.promote_types(x.dtype, torch.float32))
    largest = value.abs().amax(-1, keepdim=True).clamp(min=SMALLEST)
    return (value * (STEPS / largest)).round().clamp(-128, 127), largest / STEPS


def integer_product(codes: Tensor, step: Tensor, ternary: Tensor, scale: Tensor) -> Tensor:
    """((codes . ternary) step) scale (..., O), codes (..., K) and ternary (O, K) of one dtype."""
    return F.linear(codes, ternary) * step * scale


class _BitLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Scale, dtype: torch.dtype) -> Tensor:
        codes, step = codes_of(x)
        unit = weight_scale(weight, scale).to(codes.dtype)
        ternary = ternary_of(weight, unit)
        ctx.save_for_backward(codes.to(torch.int8), step, ternary.to(torch.int8), unit)
        ctx.dtypes = dtype, x.dtype, weight.dtype
        return integer_product(codes, step, ternary, unit)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        codes, step, ternary, unit = ctx.saved_tensors
        dtype, input_dtype, weight_dtype = ctx.dtypes
        grad_input = grad_weight = None
        if ctx.needs_input_grad[0]:
            # integers stand in the products, so that only the gradient itself is rounded to their dtype
            grad_input = ((grad * unit).to(dtype) @ ternary.to(dtype)).to(input_dtype)
        if ctx.needs_input_grad[1]:
            rows = (grad * step).to(dtype).flatten(0, -2)
            grad_weight = (rows.t() @ codes.to(dtype).flatten(0, -2)).to(weight_dtype)
        return grad_input, grad_weight, None, None
