"""rotary_qk_norm as one forward and one backward kernel over all heads of q and k together.

The second grid axis counts q's heads and then k's; a program's tile is some tokens of one head, kept as its
two halves. The backward recomputes the norm from the input, so nothing but the input is saved; each program
sums the weight's gradient over its tokens, and the sums are added afterwards in a fixed order.
"""

import torch
import triton
import triton.language as tl

TILE_ELEMENTS = 2048
BACKWARD_PROGRAMS = 128


@triton.jit
def load_half(pointer, offset, column, row, rows, HALF: tl.constexpr):
    mask = (row[:, None] < rows) & (column[None, :] < HALF)
    return tl.load(pointer + offset + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "length"])
def forward_kernel(
    q_pointer,
    k_pointer,
    cos_pointer,
    sin_pointer,
    q_weight_pointer,
    k_weight_pointer,
    q_out_pointer,
    k_out_pointer,
    rows,
    length,
    q_batch,
    q_time,
    q_head,
    k_batch,
    k_time,
    k_head,
    angle_batch,
    eps,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    NORMALISE: tl.constexpr,
    HAS_Q_WEIGHT: tl.constexpr,
    HAS_K_WEIGHT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    head = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    batch, time = (row // length).to(tl.int64), (row % length).to(tl.int64)
    angle = (batch * angle_batch + time * HALF)[:, None]
    cos = load_half(cos_pointer, angle, column, row, rows, HALF)
    sin = load_half(sin_pointer, angle, column, row, rows, HALF)
    if head < Q_HEADS:
        rotate(
            q_pointer, (batch * q_batch + time * q_time + head * q_head)[:, None], q_weight_pointer, q_out_pointer,
            ((row.to(tl.int64) * Q_HEADS + head) * 2 * HALF)[:, None], cos, sin, column, row, rows, eps,
            HALF, NORMALISE, HAS_Q_WEIGHT,
        )  # fmt: skip
    else:
        head -= Q_HEADS
        rotate(
            k_pointer, (batch * k_batch + time * k_time + head * k_head)[:, None], k_weight_pointer, k_out_pointer,
            ((row.to(tl.int64) * K_HEADS + head) * 2 * HALF)[:, None], cos, sin, column, row, rows, eps,
            HALF, NORMALISE, HAS_K_WEIGHT,
        )  # fmt: skip


@triton.jit
def rotate(
    x_pointer,
    x_offset,
    weight_pointer,
    out_pointer,
    out_offset,
    cos,
    sin,
    column,
    row,
    rows,
    eps,
    HALF: tl.constexpr,
    NORMALISE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
):
    real = load_half(x_pointer, x_offset, column, row, rows, HALF)
    imaginary = load_half(x_pointer, x_offset + HALF, column, row, rows, HALF)
    if NORMALISE:
        scale = tl.rsqrt(tl.sum(real * real + imaginary * imaginary, axis=1) / (2 * HALF) + eps)[:, None]
        real *= scale
        imaginary *= scale
    if HAS_WEIGHT:
        real *= tl.load(weight_pointer + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
        imaginary *= tl.load(weight_pointer + HALF + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    mask = (row[:, None] < rows) & (column[None, :] < HALF)
    kind = out_pointer.dtype.element_ty
    out_pointer += out_offset + column[None, :]
    tl.store(out_pointer, (real * cos - imaginary * sin).to(kind), mask=mask)
    tl.store(out_pointer + HALF, (imaginary * cos + real * sin).to(kind), mask=mask)


@triton.jit(do_not_specialize=["rows", "length", "blocks"])
def backward_kernel(
    grad_q_out_pointer,
    grad_k_out_pointer,
    q_pointer,
    k_pointer,
    cos_pointer,
    sin_pointer,
    q_weight_pointer,
    k_weight_pointer,
    grad_q_pointer,
    grad_k_pointer,
    grad_weight_pointer,
    rows,
    length,
    blocks,
    q_batch,
    q_time,
    q_head,
    k_batch,
    k_time,
    k_head,
    angle_batch,
    eps,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    NORMALISE: tl.constexpr,
    HAS_Q_WEIGHT: tl.constexpr,
    HAS_K_WEIGHT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    head = tl.program_id(1)
    grad_weight_pointer += (tl.program_id(0) * (Q_HEADS + K_HEADS) + head) * 2 * HALF
    column = tl.arange(0, BLOCK)
    grad_real_weight = tl.zeros((BLOCK,), tl.float32)
    grad_imaginary_weight = tl.zeros((BLOCK,), tl.float32)
    for block in range(blocks):
        row = (tl.program_id(0) * blocks + block) * ROWS + tl.arange(0, ROWS)
        batch, time = (row // length).to(tl.int64), (row % length).to(tl.int64)
        angle = (batch * angle_batch + time * HALF)[:, None]
        cos = load_half(cos_pointer, angle, column, row, rows, HALF)
        sin = load_half(sin_pointer, angle, column, row, rows, HALF)
        if head < Q_HEADS:
            out_offset = ((row.to(tl.int64) * Q_HEADS + head) * 2 * HALF)[:, None]
            grad_real, grad_imaginary = rotate_back(
                q_pointer, (batch * q_batch + time * q_time + head * q_head)[:, None], q_weight_pointer,
                grad_q_out_pointer, grad_q_pointer, out_offset, cos, sin, column, row, rows, eps,
                HALF, NORMALISE, HAS_Q_WEIGHT,
            )  # fmt: skip
        else:
            k_index = head - Q_HEADS
            out_offset = ((row.to(tl.int64) * K_HEADS + k_index) * 2 * HALF)[:, None]
            grad_real, grad_imaginary = rotate_back(
                k_pointer, (batch * k_batch + time * k_time + k_index * k_head)[:, None], k_weight_pointer,
                grad_k_out_pointer, grad_k_pointer, out_offset, cos, sin, column, row, rows, eps,
                HALF, NORMALISE, HAS_K_WEIGHT,
            )  # fmt: skip
        grad_real_weight += grad_real
        grad_imaginary_weight += grad_imaginary
    if HAS_Q_WEIGHT or HAS_K_WEIGHT:
        tl.store(grad_weight_pointer + column, grad_real_weight, mask=column < HALF)
        tl.store(grad_weight_pointer + HALF + column, grad_imaginary_weight, mask=column < HALF)


@triton.jit
def rotate_back(
    x_pointer,
    x_offset,
    weight_pointer,
    grad_out_pointer,
    grad_pointer,
    out_offset,
    cos,
    sin,
    column,
    row,
    rows,
    eps,
    HALF: tl.constexpr,
    NORMALISE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
):
    """Store the input's gradient, return the weight's two halves summed over the tile's tokens."""
    upper = load_half(grad_out_pointer, out_offset, column, row, rows, HALF)
    lower = load_half(grad_out_pointer, out_offset + HALF, column, row, rows, HALF)
    grad_real = upper * cos + lower * sin
    grad_imaginary = lower * cos - upper * sin
    real = load_half(x_pointer, x_offset, column, row, rows, HALF)
    imaginary = load_half(x_pointer, x_offset + HALF, column, row, rows, HALF)
    if NORMALISE:
        scale = tl.rsqrt(tl.sum(real * real + imaginary * imaginary, axis=1) / (2 * HALF) + eps)[:, None]
        real *= scale
        imaginary *= scale
    grad_real_weight = tl.sum(grad_real * real, axis=0)
    grad_imaginary_weight = tl.sum(grad_imaginary * imaginary, axis=0)
    if HAS_WEIGHT:
        grad_real *= tl.load(weight_pointer + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
        grad_imaginary *= tl.load(weight_pointer + HALF + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    if NORMALISE:
        along = tl.sum(grad_real * real + grad_imaginary * imaginary, axis=1)[:, None] / (2 * HALF)
        grad_real = (grad_real - real * along) * scale
        grad_imaginary = (grad_imaginary - imaginary * along) * scale
    mask = (row[:, None] < rows) & (column[None, :] < HALF)
    kind = grad_pointer.dtype.element_ty
    grad_pointer += out_offset + column[None, :]
    tl.store(grad_pointer, grad_real.to(kind), mask=mask)
    tl.store(grad_pointer + HALF, grad_imaginary.to(kind), mask=mask)
    return grad_real_weight, grad_imaginary_weight


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q (B, T, H, D), k (B, T, G, D), unit stride in D; cos, sin (B or 1, T, D / 2) contiguous."""
    q_out, k_out = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k))
    rows, tile = q.shape[0] * q.shape[1], tile_of(q)
    if rows:
        forward_kernel[(triton.cdiv(rows, tile["ROWS"]), q.shape[2] + k.shape[2])](
            q, k, cos, sin, q_weight, k_weight, q_out, k_out, rows, q.shape[1], *strides(q, k, cos),
            1.0 if eps is None else eps, **constants(q, k, q_weight, k_weight, eps), **tile,
        )  # fmt: skip
    return q_out, k_out


def backward(
    grad_q_out: torch.Tensor,
    grad_k_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q and k, and of both weights as float32 (2, D), from contiguous incoming gradients."""
    grad_q, grad_k = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k))
    rows, tile = q.shape[0] * q.shape[1], tile_of(q)
    heads = q.shape[2] + k.shape[2]
    blocks = max(1, triton.cdiv(triton.cdiv(rows, tile["ROWS"]), BACKWARD_PROGRAMS))
    programs = triton.cdiv(triton.cdiv(rows, tile["ROWS"]), blocks)
    weighted = q_weight is not None or k_weight is not None
    partial = torch.empty(programs if weighted else 0, heads, q.shape[3], dtype=torch.float32, device=q.device)
    if rows:
        backward_kernel[(programs, heads)](
            grad_q_out, grad_k_out, q, k, cos, sin, q_weight, k_weight, grad_q, grad_k, partial,
            rows, q.shape[1], blocks, *strides(q, k, cos), 1.0 if eps is None else eps,
            **constants(q, k, q_weight, k_weight, eps), **tile,
        )  # fmt: skip
    sums = partial.sum(0)
    return grad_q, grad_k, torch.stack([sums[: q.shape[2]].sum(0), sums[q.shape[2] :].sum(0)])


def tile_of(q: torch.Tensor) -> dict[str, int]:
    """Tokens a tile and the padded half of a head."""
    block = triton.next_power_of_2(q.shape[3] // 2)
    return {"ROWS": max(1, min(64, TILE_ELEMENTS // block)), "BLOCK": block, "num_warps": 4}


def strides(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor) -> tuple[int, ...]:
    """Batch, time and head strides of q and k, and the batch stride of the angles."""
    return *q.stride()[:3], *k.stride()[:3], 0 if cos.shape[0] == 1 else cos.stride(0)


def constants(
    q: torch.Tensor,
    k: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float | None,
) -> dict[str, int | bool]:
    """The compile-time constants that both kernels take."""
    return {
        "Q_HEADS": q.shape[2],
        "K_HEADS": k.shape[2],
        "HALF": q.shape[3] // 2,
        "NORMALISE": eps is not None,
        "HAS_Q_WEIGHT": q_weight is not None,
        "HAS_K_WEIGHT": k_weight is not None,
    }
