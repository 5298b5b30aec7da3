"""The symmetric product of newton_schulz: half the tiles are computed, and each is stored with its mirror
image.

X X^T is symmetric, and so is the square of a symmetric matrix, A A = A A^T, so one kernel serves both; the
idea is modded-nanogpt's.
"""

import torch
import triton
import triton.language as tl

from tinykernels.products import dot_dtype


@triton.jit
def symmetric_product_kernel(
    x_pointer,
    base_pointer,
    out_pointer,
    alpha,
    beta,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HAS_BASE: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    DOT: tl.constexpr,
):
    first, second = tl.program_id(0), tl.program_id(1)
    if first > second:
        return
    matrix = tl.program_id(2).to(tl.int64)
    x_pointer += matrix * ROWS * COLUMNS
    out_pointer += matrix * ROWS * ROWS
    left = first * TILE + tl.arange(0, TILE)
    right = second * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, COLUMNS, STEP):
        column = start + tl.arange(0, STEP)
        inside = column[None, :] < COLUMNS
        x = tl.load(
            x_pointer + left[:, None] * COLUMNS + column[None, :],
            mask=inside & (left[:, None] < ROWS),
            other=0.0,
        )
        y = tl.load(
            x_pointer + right[:, None] * COLUMNS + column[None, :],
            mask=inside & (right[:, None] < ROWS),
            other=0.0,
        )
        total = tl.dot(x.to(DOT), tl.trans(y.to(DOT)), total, input_precision="tf32x3")
    total *= alpha
    mask = (left[:, None] < ROWS) & (right[None, :] < ROWS)
    offset = left[:, None] * ROWS + right[None, :]
    if HAS_BASE:
        total += beta * tl.load(base_pointer + matrix * ROWS * ROWS + offset, mask=mask, other=0.0).to(tl.float32)
    value = total.to(out_pointer.dtype.element_ty)
    tl.store(out_pointer + offset, value, mask=mask)
    if first < second:
        mirror = right[:, None] * ROWS + left[None, :]
        mirror_mask = (right[:, None] < ROWS) & (left[None, :] < ROWS)
        tl.store(out_pointer + mirror, tl.trans(value), mask=mirror_mask)


def symmetric_product(
    x: torch.Tensor, base: torch.Tensor | None = None, *, alpha: float = 1.0, beta: float = 0.0
) -> torch.Tensor:
    """alpha x x^T + beta base for x (S, M, N) contiguous and a symmetric base (S, M, M): (S, M, M)."""
    stack, rows, columns = x.shape
    out = torch.empty(stack, rows, rows, dtype=x.dtype, device=x.device)
    tile = 32 if rows <= 32 or x.dtype == torch.float32 else 64 if rows <= 512 else 128
    blocks = triton.cdiv(rows, tile)
    symmetric_product_kernel[(blocks, blocks, stack)](
        x,
        base,
        out,
        alpha,
        beta,
        ROWS=rows,
        COLUMNS=columns,
        HAS_BASE=base is not None,
        TILE=tile,
        STEP=32 if tile == 32 else 64,
        DOT=dot_dtype(x.dtype),
        num_warps=8 if tile == 128 else 4,
        num_stages=3,
    )
    return out
