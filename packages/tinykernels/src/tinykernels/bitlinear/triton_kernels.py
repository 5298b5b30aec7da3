"""bitlinear in Triton: row quantisation (with the norm before it), and int8 products with the scales as epilogue.

Divisions are the correctly rounded ones and FP fusion is off, so that the kernels round where the torch path
rounds. The two products of the backward pass are cuBLAS's; the norm's backward is rms_norm's kernel.
"""

import torch
import triton
import triton.language as tl

from tinykernels.bitlinear import quantisation
from tinykernels.rms_norm import triton_kernels as rms_norm

ROW_ELEMENTS = 2048  # elements a program quantises at least
WEIGHT_BLOCK = 1024
ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it leaves no fraction bits, half goes to even
SMALLEST = tl.constexpr(quantisation.SMALLEST)


@triton.jit
def round_half_even(value):
    """The nearest integer, ties to even, for |value| < 2^22."""
    return (value + ROUNDER) - ROUNDER


@triton.jit(do_not_specialize=["elements"])
def quantise_weight_kernel(weight, scale, ternary, elements, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < elements
    value = tl.load(weight + offset, mask=inside, other=0.0).to(tl.float32)
    value = tl.div_rn(value, tl.load(scale) + tl.zeros((BLOCK,), tl.float32))
    value = round_half_even(tl.minimum(tl.maximum(value, -1.0), 1.0))
    tl.store(ternary + offset, value.to(tl.int8), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def quantise_rows_kernel(
    x,
    norm_weight,
    codes,
    step,
    inverse_root,
    rows,
    eps,
    WIDTH: tl.constexpr,
    HAS_NORM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    offset = row[:, None].to(tl.int64) * WIDTH + column[None, :]
    value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
    if HAS_NORM:
        root = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / WIDTH + eps)
        tl.store(inverse_root + row, root, mask=row < rows)
        gain = tl.load(norm_weight + column, mask=column < WIDTH, other=0.0).to(tl.float32)
        value = value * root[:, None] * gain[None, :]
    largest = tl.maximum(tl.max(tl.abs(value), axis=1), SMALLEST)  # (ROWS,)
    steps = tl.full((ROWS,), 127.0, tl.float32)
    code = round_half_even(value * tl.div_rn(steps, largest)[:, None])
    tl.store(codes + offset, tl.minimum(tl.maximum(code, -128.0), 127.0).to(tl.int8), mask=inside)
    tl.store(step + row, tl.div_rn(largest, steps), mask=row < rows)


@triton.jit
def store_product(sums, step, scale, bias, y, m, o, rows, OUT: tl.constexpr, HAS_BIAS: tl.constexpr):
    """y[m, o] = (sums step) scale + bias, rounded once more to y's dtype."""
    value = sums.to(tl.float32) * tl.load(step + m, mask=m < rows, other=0.0)[:, None]
    value *= tl.load(scale)
    if HAS_BIAS:
        value += tl.load(bias + o, mask=o < OUT, other=0.0).to(tl.float32)[None, :]
    offset = m[:, None].to(tl.int64) * OUT + o[None, :]
    tl.store(y + offset, value.to(y.dtype.element_ty), mask=(m < rows)[:, None] & (o < OUT)[None, :])


@triton.jit(do_not_specialize=["rows"])
def product_kernel(
    codes,
    step,
    ternary,
    scale,
    bias,
    y,
    rows,
    OUT: tl.constexpr,
    WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    k = tl.arange(0, BLOCK_K)
    row_offset = m[:, None].to(tl.int64) * WIDTH + k[None, :]
    weight_offset = o[None, :] * WIDTH + k[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_O), tl.int32)
    for first in range(0, WIDTH, BLOCK_K):
        inside = k < WIDTH - first
        left = tl.load(codes + row_offset + first, mask=(m < rows)[:, None] & inside[None, :], other=0)
        right = tl.load(ternary + weight_offset + first, mask=(o < OUT)[None, :] & inside[:, None], other=0)
        sums = tl.dot(left, right, sums, out_dtype=tl.int32)
    store_product(sums, step, scale, bias, y, m, o, rows, OUT, HAS_BIAS)


@triton.jit(do_not_specialize=["rows"])
def packed_product_kernel(
    codes,
    step,
    packed,
    scale,
    bias,
    y,
    rows,
    OUT: tl.constexpr,
    WIDTH: tl.constexpr,
    QUARTER: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    k = tl.arange(0, BLOCK_K)
    row_offset = m[:, None].to(tl.int64) * WIDTH + k[None, :]
    packed_offset = o[None, :] * QUARTER + k[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_O), tl.int32)
    for first in range(0, QUARTER, BLOCK_K):
        inside = k < QUARTER - first
        bits = tl.load(packed + packed_offset + first, mask=(o < OUT)[None, :] & inside[:, None], other=0)
        for quarter in tl.static_range(4):
            # past the quarter or the row the activation is 0, whatever the bits
            live = inside & (k < WIDTH - quarter * QUARTER - first)
            left = tl.load(
                codes + row_offset + (quarter * QUARTER + first),
                mask=(m < rows)[:, None] & live[None, :],
                other=0,
            )
            right = ((bits >> (2 * quarter)) & 3).to(tl.int8) - 1
            sums = tl.dot(left, right.to(tl.int8), sums, out_dtype=tl.int32)
    store_product(sums, step, scale, bias, y, m, o, rows, OUT, HAS_BIAS)


def quantise_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ternary int8 (O, K) and its scale ()."""
    scale = quantisation.weight_scale(weight)
    ternary = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    quantise_weight_kernel[(triton.cdiv(weight.numel(), WEIGHT_BLOCK),)](
        weight.contiguous(), scale, ternary, weight.numel(), BLOCK=WEIGHT_BLOCK, num_warps=4
    )
    return ternary, scale


def quantise_rows(
    x: torch.Tensor, norm_weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """codes int8 (M, K), the value of one step (M,), the norm's inverse root (M,), empty without a norm."""
    rows, width = x.shape
    codes = torch.empty(rows, width, dtype=torch.int8, device=x.device)
    step = torch.empty(rows, dtype=torch.float32, device=x.device)
    inverse_root = torch.empty(0 if norm_weight is None else rows, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    tile = max(1, ROW_ELEMENTS // block)
    if rows > 0:
        quantise_rows_kernel[(triton.cdiv(rows, tile),)](
            x,
            None if norm_weight is None else norm_weight.contiguous(),
            codes,
            step,
            inverse_root,
            rows,
            eps,
            WIDTH=width,
            HAS_NORM=norm_weight is not None,
            ROWS=tile,
            BLOCK=block,
            num_warps=4 if block <= 4096 else 8,
            enable_fp_fusion=False,
        )
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
    rows, width = codes.shape
    out = ternary.shape[0]
    y = torch.empty(rows, out, dtype=dtype, device=codes.device)
    block_m, block_o, block_k, warps, stages = tiles(rows)
    if rows > 0:
        product_kernel[(triton.cdiv(out, block_o), triton.cdiv(rows, block_m))](
            codes,
            step,
            ternary,
            scale,
            None if bias is None else bias.contiguous(),
            y,
            rows,
            OUT=out,
            WIDTH=width,
            HAS_BIAS=bias is not None,
            BLOCK_M=block_m,
            BLOCK_O=block_o,
            BLOCK_K=block_k,
            num_warps=warps,
            num_stages=stages,
            enable_fp_fusion=False,
        )
    return y


def packed_product(
    codes: torch.Tensor,
    step: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`product` with the ternary weight as 2-bit codes (O, ceil(K / 4)): see packing."""
    rows, width = codes.shape
    out, quarter = packed.shape
    y = torch.empty(rows, out, dtype=dtype, device=codes.device)
    block_m, block_o, block_k, warps, stages = tiles(rows)
    block_o = min(block_o, 64)  # four unpacked weight tiles at a time: wider ones spill on sm_86
    if rows > 0:
        packed_product_kernel[(triton.cdiv(out, block_o), triton.cdiv(rows, block_m))](
            codes,
            step,
            packed.contiguous(),
            scale,
            None if bias is None else bias.contiguous(),
            y,
            rows,
            OUT=out,
            WIDTH=width,
            QUARTER=quarter,
            HAS_BIAS=bias is not None,
            BLOCK_M=block_m,
            BLOCK_O=block_o,
            BLOCK_K=block_k,
            num_warps=warps,
            num_stages=stages,
            enable_fp_fusion=False,
        )
    return y


def tiles(rows: int) -> tuple[int, int, int, int, int]:
    """Rows, outputs and columns of a tile, warps, pipeline stages. Few rows: the weight is all the traffic, and
    narrow tiles spread it over more multiprocessors."""
    if rows <= 16:
        return 16, 32, 128, 4, 3
    if rows <= 512:
        return 64, 64, 64, 4, 3
    return 128, 128, 64, 8, 3


def norm_backward(
    grad: torch.Tensor, x: torch.Tensor, norm_weight: torch.Tensor, inverse_root: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of x (M, K) and norm_weight (K,) from that of the normed rows."""
    return rms_norm.backward(grad, None, x, norm_weight, inverse_root)
