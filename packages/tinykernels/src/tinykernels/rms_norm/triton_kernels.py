"""rms_norm as two Triton kernels: several rows a program, each row whole in registers.

The backward keeps one program a few row blocks long per multiprocessor and writes each program's share of
the weight's gradient as a float32 row; the rows are summed afterwards, in a fixed order, so the result is
deterministic.
"""

import torch
import triton
import triton.language as tl

MAX_WIDTH = 16384
TILE_ELEMENTS = 4096
BACKWARD_PROGRAMS = 256


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    x_pointer,
    weight_pointer,
    residual_pointer,
    y_pointer,
    h_pointer,
    scale_pointer,
    rows,
    eps,
    WIDTH: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    mask = (row[:, None] < rows) & (column[None, :] < WIDTH)
    offset = row[:, None].to(tl.int64) * WIDTH + column[None, :]
    value = tl.load(x_pointer + offset, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        value += tl.load(residual_pointer + offset, mask=mask, other=0.0).to(tl.float32)
        rounded = value.to(h_pointer.dtype.element_ty)  # the norm sees the sum that is stored
        tl.store(h_pointer + offset, rounded, mask=mask)
        value = rounded.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / WIDTH + eps)
    tl.store(scale_pointer + row, scale, mask=row < rows)
    value *= scale[:, None]
    if HAS_WEIGHT:
        weight = tl.load(weight_pointer + column, mask=column < WIDTH, other=0.0).to(tl.float32)
        value *= weight[None, :]
    tl.store(y_pointer + offset, value.to(y_pointer.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "blocks_per_program"])
def backward_kernel(
    grad_y_pointer,
    grad_h_pointer,
    h_pointer,
    weight_pointer,
    scale_pointer,
    grad_pointer,
    grad_weight_pointer,
    rows,
    blocks_per_program,
    WIDTH: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_GRAD_H: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    grad_weight = tl.zeros((BLOCK,), tl.float32)
    if HAS_WEIGHT:
        weight = tl.load(weight_pointer + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    for block in range(blocks_per_program):
        row = (program * blocks_per_program + block) * ROWS + tl.arange(0, ROWS)
        mask = (row[:, None] < rows) & (column[None, :] < WIDTH)
        offset = row[:, None].to(tl.int64) * WIDTH + column[None, :]
        scale = tl.load(scale_pointer + row, mask=row < rows, other=0.0)
        normed = tl.load(h_pointer + offset, mask=mask, other=0.0).to(tl.float32) * scale[:, None]
        upstream = tl.load(grad_y_pointer + offset, mask=mask, other=0.0).to(tl.float32)
        if HAS_WEIGHT:
            grad_weight += tl.sum(upstream * normed, axis=0)
            upstream *= weight[None, :]
        along = tl.sum(upstream * normed, axis=1) / WIDTH
        grad = (upstream - normed * along[:, None]) * scale[:, None]
        if HAS_GRAD_H:
            grad += tl.load(grad_h_pointer + offset, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_pointer + offset, grad.to(grad_pointer.dtype.element_ty), mask=mask)
    if HAS_WEIGHT:
        tl.store(grad_weight_pointer + program * WIDTH + column, grad_weight, mask=column < WIDTH)


def tile(width: int) -> tuple[int, int, int]:
    """Rows a program, padded width and warps for rows of `width` elements."""
    block = triton.next_power_of_2(width)
    return max(1, min(16, TILE_ELEMENTS // block)), block, 4 if block <= TILE_ELEMENTS else 8


def forward(
    x: torch.Tensor, weight: torch.Tensor | None, residual: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """x, residual (R, D) -> y (R, D), h (R, D) or None, the inverse root mean square (R,) float32."""
    rows, width = x.shape
    y = torch.empty_like(x)
    h = None
    if residual is not None:
        h = torch.empty_like(x, dtype=torch.promote_types(x.dtype, residual.dtype))
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    tile_rows, block, warps = tile(width)
    if rows:
        forward_kernel[(triton.cdiv(rows, tile_rows),)](
            x,
            weight,
            residual,
            y,
            h,
            scale,
            rows,
            eps,
            WIDTH=width,
            HAS_WEIGHT=weight is not None,
            HAS_RESIDUAL=residual is not None,
            ROWS=tile_rows,
            BLOCK=block,
            num_warps=warps,
        )
    return y, h, scale


def backward(
    grad_y: torch.Tensor,
    grad_h: torch.Tensor | None,
    h: torch.Tensor,
    weight: torch.Tensor | None,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of h (R, D), in h's dtype, and of the weight (D,), in its dtype."""
    rows, width = h.shape
    grad = torch.empty_like(h)
    tile_rows, block, warps = tile(width)
    blocks = triton.cdiv(rows, tile_rows)
    blocks_per_program = max(1, triton.cdiv(blocks, BACKWARD_PROGRAMS))
    programs = triton.cdiv(blocks, blocks_per_program)
    partial = None
    if weight is not None:
        partial = torch.empty(programs, width, dtype=torch.float32, device=h.device)
    if rows:
        backward_kernel[(programs,)](
            grad_y,
            grad_h,
            h,
            weight,
            scale,
            grad,
            partial,
            rows,
            blocks_per_program,
            WIDTH=width,
            HAS_WEIGHT=weight is not None,
            HAS_GRAD_H=grad_h is not None,
            ROWS=tile_rows,
            BLOCK=block,
            num_warps=warps,
        )
    return grad, None if weight is None or partial is None else partial.sum(0).to(weight.dtype)
