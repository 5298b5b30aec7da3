"""causal_conv1d in Triton: tiles of positions x channels, each tap a shifted load that the cache answers.

The backward kernel recomputes what stood before silu. The gradient of an input is a sum over the W outputs that
read it; for the W - 1 inputs before a sequence's first (its initial state) the same sum runs at negative positions.
The weights' gradient leaves as one partial sum a tile and is added up by one reduction: no atomics.
"""

import torch
import triton
import triton.language as tl

from tinykernels.documents import segment_of
from tinykernels.sequences import bounds

BLOCK_T = 16
BLOCK_D = 64


@triton.jit
def source(x, initial, document, begin, place, d, live, DIM: tl.constexpr, W: tl.constexpr, HAS_INITIAL: tl.constexpr):
    """Input number `place` (rows) of each row's document: x where place >= 0, the initial state before."""
    offset = (begin + place)[:, None] * DIM + d[None, :]
    value = tl.load(x + offset, mask=live & (place >= 0)[:, None], other=0.0).to(tl.float32)
    if HAS_INITIAL:
        slot = document * (W - 1) + (W - 1) + place
        in_state = (place < 0) & (place >= 1 - W)
        value += tl.load(initial + slot[:, None] * DIM + d[None, :], mask=live & in_state[:, None], other=0.0).to(
            tl.float32
        )
    return value


@triton.jit
def rows_of_tile(segments, cu_seqlens, total, length, BLOCK_T: tl.constexpr, VARLEN: tl.constexpr):
    """For a tile of stream positions: whether they exist, their document, its bounds, their place within it."""
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    exists = t < total
    if VARLEN:
        document = tl.load(segments + t, mask=exists, other=0).to(tl.int64)
    else:
        document = t // length
    begin, end = bounds(cu_seqlens, document, length, VARLEN)
    return exists, document, begin, end, t - begin


@triton.jit(do_not_specialize=["total", "length"])
def forward_kernel(
    x,
    weight,
    bias,
    initial,
    segments,
    cu_seqlens,
    y,
    total,
    length,
    DIM: tl.constexpr,
    W: tl.constexpr,
    VARLEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    SILU: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    exists, document, begin, _, place = rows_of_tile(segments, cu_seqlens, total, length, BLOCK_T, VARLEN)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    live = exists[:, None] & (d < DIM)[None, :]
    sums = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    if HAS_BIAS:
        sums += tl.load(bias + d, mask=d < DIM, other=0.0).to(tl.float32)[None, :]
    for back in tl.static_range(W):
        tap = tl.load(weight + d * W + (W - 1 - back), mask=d < DIM, other=0.0).to(tl.float32)
        sums += tap[None, :] * source(x, initial, document, begin, place - back, d, live, DIM, W, HAS_INITIAL)
    if SILU:
        sums *= tl.sigmoid(sums)
    tl.store(y + (begin + place)[:, None] * DIM + d[None, :], sums.to(y.dtype.element_ty), mask=live)


@triton.jit
def gradients_of_rows(
    grad_y,
    x,
    weight,
    bias,
    initial,
    document,
    begin,
    end,
    place,
    d,
    live,
    DIM: tl.constexpr,
    W: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    SILU: tl.constexpr,
):
    """The gradient of input number `place` of each row's document, the gradient of the sum (before silu) of the
    output at the same place, and the inputs that this sum read, newest first."""
    taps = ()
    for back in tl.static_range(W):
        tap = tl.load(weight + d * W + (W - 1 - back), mask=d < DIM, other=0.0).to(tl.float32)
        taps = taps + (tap[None, :],)  # noqa: RUF005 (Triton syntax)
    inputs = ()
    for behind in tl.static_range(2 * W - 1):  # places W - 1 after .. W - 1 before
        after = live & (place + (W - 1 - behind) < end - begin)[:, None]
        inputs = inputs + (  # noqa: RUF005
            source(x, initial, document, begin, place + (W - 1 - behind), d, after, DIM, W, HAS_INITIAL),
        )
    grad_input = tl.zeros(live.shape, tl.float32)
    grad_sum = grad_input
    for back in tl.static_range(W - 1, -1, -1):  # the output `back` places later reads this input with tap `back`
        later = place + back
        reads = live & ((later >= 0) & (later < end - begin))[:, None]
        offset = (begin + later)[:, None] * DIM + d[None, :]
        grad_sum = tl.load(grad_y + offset, mask=reads, other=0.0).to(tl.float32)
        if SILU:
            sums = tl.zeros(live.shape, tl.float32)
            if HAS_BIAS:
                sums += tl.load(bias + d, mask=d < DIM, other=0.0).to(tl.float32)[None, :]
            for other in tl.static_range(W):
                sums += taps[other] * inputs[W - 1 - back + other]
            sigmoid = tl.sigmoid(sums)
            grad_sum *= sigmoid * (1.0 + sums * (1.0 - sigmoid))
        grad_input += taps[back] * grad_sum
    return grad_input, grad_sum, inputs


@triton.jit(do_not_specialize=["total", "length"])
def backward_kernel(
    grad_y,
    x,
    weight,
    bias,
    initial,
    segments,
    cu_seqlens,
    grad_x,
    parts,
    total,
    length,
    DIM: tl.constexpr,
    W: tl.constexpr,
    VARLEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    SILU: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    exists, document, begin, end, place = rows_of_tile(segments, cu_seqlens, total, length, BLOCK_T, VARLEN)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    live = exists[:, None] & (d < DIM)[None, :]
    grad_input, grad_sum, inputs = gradients_of_rows(
        grad_y,
        x,
        weight,
        bias,
        initial,
        document,
        begin,
        end,
        place,
        d,
        live,
        DIM,
        W,
        HAS_BIAS,
        HAS_INITIAL,
        SILU,
    )
    offset = (begin + place)[:, None] * DIM + d[None, :]
    tl.store(grad_x + offset, grad_input.to(grad_x.dtype.element_ty), mask=live)
    part = parts + tl.program_id(0).to(tl.int64) * ((W + 1) * DIM) + d  # rows: the W taps, then the bias
    for back in tl.static_range(W):
        tl.store(part + (W - 1 - back) * DIM, tl.sum(grad_sum * inputs[W - 1 + back], 0), mask=d < DIM)
    tl.store(part + W * DIM, tl.sum(grad_sum, 0), mask=d < DIM)


@triton.jit(do_not_specialize=["length"])
def initial_gradient_kernel(
    grad_y,
    x,
    weight,
    bias,
    initial,
    cu_seqlens,
    grad_initial,
    length,
    DIM: tl.constexpr,
    W: tl.constexpr,
    VARLEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SILU: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    slot = tl.arange(0, BLOCK_W)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    live = (slot < W - 1)[:, None] & (d < DIM)[None, :]
    document = tl.program_id(0).to(tl.int64) + tl.zeros((BLOCK_W,), tl.int64)
    begin, end = bounds(cu_seqlens, document, length, VARLEN)
    grad_input, _, _ = gradients_of_rows(
        grad_y,
        x,
        weight,
        bias,
        initial,
        document,
        begin,
        end,
        (slot - (W - 1)).to(tl.int64),
        d,
        live,
        DIM,
        W,
        HAS_BIAS,
        True,
        SILU,
    )
    offset = (document * (W - 1) + slot)[:, None] * DIM + d[None, :]
    tl.store(grad_initial + offset, grad_input, mask=live)


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
) -> torch.Tensor:
    """y (B, L, D) in x's dtype."""
    batch, length, dim = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    forward_kernel[(triton.cdiv(batch * length, BLOCK_T), triton.cdiv(dim, BLOCK_D))](
        x.contiguous(),
        weight.contiguous(),
        None if bias is None else bias.contiguous(),
        None if initial_state is None else initial_state.contiguous(),
        None if cu_seqlens is None else segment_of(cu_seqlens, length),
        cu_seqlens,
        y,
        batch * length,
        length,
        DIM=dim,
        W=weight.shape[1],
        VARLEN=cu_seqlens is not None,
        HAS_BIAS=bias is not None,
        HAS_INITIAL=initial_state is not None,
        SILU=silu,
        BLOCK_T=BLOCK_T,
        BLOCK_D=BLOCK_D,
        num_warps=4,
    )
    return y


def backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, weight, bias and the initial states (S, W - 1, D), the last three in float32; zeros for the
    initial states if there are none."""
    batch, length, dim = x.shape
    width = weight.shape[1]
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    grad_y, x, weight = grad_y.contiguous(), x.contiguous(), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    initial_state = None if initial_state is None else initial_state.contiguous()
    grad_x = torch.empty_like(x)
    tiles, blocks = triton.cdiv(batch * length, BLOCK_T), triton.cdiv(dim, BLOCK_D)
    parts = torch.empty(tiles, width + 1, dim, device=x.device, dtype=torch.float32)
    backward_kernel[(tiles, blocks)](
        grad_y,
        x,
        weight,
        bias,
        initial_state,
        None if cu_seqlens is None else segment_of(cu_seqlens, length),
        cu_seqlens,
        grad_x,
        parts,
        batch * length,
        length,
        DIM=dim,
        W=width,
        VARLEN=cu_seqlens is not None,
        HAS_BIAS=bias is not None,
        HAS_INITIAL=initial_state is not None,
        SILU=silu,
        BLOCK_T=BLOCK_T,
        BLOCK_D=BLOCK_D,
        num_warps=4,
    )
    grad_initial = torch.zeros(sequences, width - 1, dim, device=x.device, dtype=torch.float32)
    if initial_state is not None:
        initial_gradient_kernel[(sequences, blocks)](
            grad_y,
            x,
            weight,
            bias,
            initial_state,
            cu_seqlens,
            grad_initial,
            length,
            DIM=dim,
            W=width,
            VARLEN=cu_seqlens is not None,
            HAS_BIAS=bias is not None,
            SILU=silu,
            BLOCK_W=triton.next_power_of_2(width - 1),
            BLOCK_D=BLOCK_D,
            num_warps=4,
        )
    sums = parts.sum(0)  # (W + 1, D)
    return grad_x, sums[:width].t().contiguous(), sums[width].clone(), grad_initial
