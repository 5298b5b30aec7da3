"""bitlinear in torch operations: int8 products on a CPU (VNNI), exact float32 products elsewhere."""

import torch

from tinykernels.bitlinear import quantisation
from tinykernels.rms_norm import cpu as rms_norm

BLOCK_BYTES = 1 << 20  # float32 values handled at a time: each step reads what the last one wrote


def quantise_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ternary int8 (O, K) and its scale ()."""
    scale = quantisation.weight_scale(weight)
    return quantisation.ternary_of(weight, scale), scale


def quantise_rows(
    x: torch.Tensor, norm_weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """codes int8 (M, K), the value of one step (M,), the norm's inverse root (M,), empty without a norm."""
    rows, width = x.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    codes = torch.empty(rows, width, dtype=torch.int8, device=x.device)
    step = torch.empty(rows, dtype=wide, device=x.device)
    inverse_root = torch.empty(0 if norm_weight is None else rows, dtype=wide, device=x.device)
    for part in _blocks(x, width):
        value = x[part]
        if norm_weight is not None:
            value, inverse_root[part] = quantisation.normed(value, norm_weight, eps)
        codes[part], step[part] = quantisation.codes_of(value)
    return codes, step, inverse_root


def product(
    codes: torch.Tensor,
    step: torch.Tensor,
    ternary: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """y (M, O) = ((codes . ternary) step) scale + bias in `dtype`."""
    rows, out = codes.shape[0], ternary.shape[0]
    y = torch.empty(rows, out, dtype=dtype, device=codes.device)
    wide_bias = None if bias is None else bias.to(step.dtype)
    for part in _blocks(codes, out):
        value = _integers(codes[part], ternary).to(step.dtype).mul_(step[part, None]).mul_(scale)
        y[part] = value if wide_bias is None else value.add_(wide_bias)
    return y


def _integers(codes: torch.Tensor, ternary: torch.Tensor) -> torch.Tensor:
    """The exact integer products (M, O)."""
    if codes.device.type == "cpu":
        return torch._int_mm(codes, ternary.t())
    # cuBLAS refuses few rows and odd sizes; products of such integers are exact in float32 and in TF32
    return codes.to(torch.float32) @ ternary.to(torch.float32).t()


def _blocks(rows: torch.Tensor, width: int) -> list[slice]:
    """Slices of rows whose `width` float32 values each stay in a core's cache; one slice on a GPU."""
    count = rows.shape[0]
    step = max(1, BLOCK_BYTES // (4 * width)) if rows.device.type == "cpu" else max(1, count)
    return [slice(begin, begin + step) for begin in range(0, count, step)]


def packed_product(
    codes: torch.Tensor,
    step: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`product` with the ternary weight as 2-bit codes (O, ceil(K / 4)): see packing."""
    return product(codes, step, ternary_from(packed, codes.shape[1]), scale, bias, dtype)


def ternary_from(packed: torch.Tensor, width: int) -> torch.Tensor:
    """int8 (O, K) in -1, 0, 1 from 2-bit codes (O, ceil(K / 4))."""
    quarter = packed.shape[1]
    ternary = torch.empty(packed.shape[0], 4 * quarter, dtype=torch.int8, device=packed.device)
    for index in range(4):
        code = (packed >> (2 * index)) & 3
        ternary[:, index * quarter : (index + 1) * quarter] = code.to(torch.int8) - 1
    return ternary[:, :width].contiguous()


def norm_backward(
    grad: torch.Tensor, x: torch.Tensor, norm_weight: torch.Tensor, inverse_root: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of x (M, K) and norm_weight (K,) from that of the normed rows."""
    return rms_norm.backward(grad, None, x, norm_weight, inverse_root)
