"""gated_scan in Triton: one program sweeps one sequence for a block of channels, the state in a register.

The sweep is bound by memory latency, not by arithmetic (one multiply-add a position), so each round first issues
the loads of STEPS positions and then computes. The backward sweep runs from the last position to the first and
reads h instead of recomputing it: 10 bytes a position in bfloat16, and no atomics.
"""

import torch
import triton
import triton.language as tl

from tinykernels.sequences import bounds

STEPS = 32  # positions loaded ahead; 64 values in flight a lane
BLOCK_D = 32  # one warp, one channel a lane: as many programs as there are channels to hide latency with


@triton.jit(do_not_specialize=["length"])
def forward_kernel(
    forget,
    value,
    initial,
    cu_seqlens,
    hidden,
    final,
    length,
    DIM: tl.constexpr,
    VARLEN: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    sequence = tl.program_id(0)  # the grid dimension without a limit of 65535
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = d < DIM
    begin, end = bounds(cu_seqlens, sequence, length, VARLEN)
    state_offset = sequence.to(tl.int64) * DIM + d
    state = tl.zeros((BLOCK_D,), tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial + state_offset, mask=inside, other=0.0).to(tl.float32)
    for first in range(begin, end, STEPS):
        # positions left for each channel: the mask of step s is one comparison, s < left
        left = tl.where(inside, (end - first).to(tl.int32), 0)
        offset = first * DIM + d
        gates = ()
        values = ()
        for step in tl.static_range(STEPS):
            live = step < left
            gates = gates + (tl.load(forget + offset + step * DIM, mask=live, other=1.0),)  # noqa: RUF005
            values = values + (tl.load(value + offset + step * DIM, mask=live, other=0.0),)  # noqa: RUF005
        for step in tl.static_range(STEPS):
            state = gates[step].to(tl.float32) * state + values[step].to(tl.float32)
            tl.store(hidden + offset + step * DIM, state.to(hidden.dtype.element_ty), mask=step < left)
    tl.store(final + state_offset, state, mask=inside)


@triton.jit(do_not_specialize=["length"])
def backward_kernel(
    grad_hidden,
    grad_final,
    forget,
    hidden,
    initial,
    cu_seqlens,
    grad_forget,
    grad_value,
    grad_initial,
    length,
    DIM: tl.constexpr,
    VARLEN: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_GRAD_HIDDEN: tl.constexpr,
    HAS_GRAD_FINAL: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    sequence = tl.program_id(0)  # the grid dimension without a limit of 65535
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = d < DIM
    begin, end = bounds(cu_seqlens, sequence, length, VARLEN)
    state_offset = sequence.to(tl.int64) * DIM + d
    before = tl.zeros((BLOCK_D,), tl.float32)
    if HAS_INITIAL:
        before = tl.load(initial + state_offset, mask=inside, other=0.0).to(tl.float32)
    carry = tl.zeros((BLOCK_D,), tl.float32)  # gradient of the state after the position, from later ones
    if HAS_GRAD_FINAL:
        carry = tl.load(grad_final + state_offset, mask=inside, other=0.0).to(tl.float32)
    for behind in range(0, end - begin, STEPS):  # positions done, counted from the end
        left = tl.where(inside, (end - begin - behind).to(tl.int32), 0)
        offset = (end - 1 - behind) * DIM + d
        gates = ()
        grads = ()
        states = ()
        for step in tl.static_range(STEPS):
            live = step < left
            gates = gates + (tl.load(forget + offset - step * DIM, mask=live, other=1.0),)  # noqa: RUF005
            if HAS_GRAD_HIDDEN:
                grads = grads + (tl.load(grad_hidden + offset - step * DIM, mask=live, other=0.0),)  # noqa: RUF005
            earlier = step + 1 < left
            states = states + (tl.load(hidden + offset - (step + 1) * DIM, mask=earlier, other=0.0),)  # noqa: RUF005
        for step in tl.static_range(STEPS):
            live = step < left
            grad = carry
            if HAS_GRAD_HIDDEN:
                grad += grads[step].to(tl.float32)
            previous = states[step].to(tl.float32)
            if HAS_INITIAL:
                previous = tl.where(step + 1 == left, before, previous)
            where = offset - step * DIM
            tl.store(grad_value + where, grad.to(grad_value.dtype.element_ty), mask=live)
            tl.store(grad_forget + where, (grad * previous).to(grad_forget.dtype.element_ty), mask=live)
            carry = gates[step].to(tl.float32) * grad  # outside the sequence the gate is 1 and the gradient 0
    tl.store(grad_initial + state_offset, carry, mask=inside)


def forward(
    forget: torch.Tensor,
    value: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns h (B, L, D) in forget's dtype and the final states (N, D) in float32."""
    batch, length, dim = forget.shape
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    hidden = torch.empty_like(forget, memory_format=torch.contiguous_format)
    final = torch.empty(sequences, dim, device=forget.device, dtype=torch.float32)
    forward_kernel[(sequences, triton.cdiv(dim, BLOCK_D))](
        forget.contiguous(),
        value.contiguous(),
        None if initial_state is None else initial_state.contiguous(),
        cu_seqlens,
        hidden,
        final,
        length,
        DIM=dim,
        VARLEN=cu_seqlens is not None,
        HAS_INITIAL=initial_state is not None,
        STEPS=STEPS,
        BLOCK_D=BLOCK_D,
        num_warps=1,
    )
    return hidden, final


def backward(
    grad_hidden: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    forget: torch.Tensor,
    hidden: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of forget and value (B, L, D) and of the initial states (N, D), the last in float32."""
    batch, length, dim = forget.shape
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    grad_forget = torch.empty_like(forget, memory_format=torch.contiguous_format)
    grad_value = torch.empty_like(grad_forget)
    grad_initial = torch.empty(sequences, dim, device=forget.device, dtype=torch.float32)
    backward_kernel[(sequences, triton.cdiv(dim, BLOCK_D))](
        None if grad_hidden is None else grad_hidden.contiguous(),
        None if grad_final is None else grad_final.contiguous(),
        forget.contiguous(),
        hidden,
        None if initial_state is None else initial_state.contiguous(),
        cu_seqlens,
        grad_forget,
        grad_value,
        grad_initial,
        length,
        DIM=dim,
        VARLEN=cu_seqlens is not None,
        HAS_INITIAL=initial_state is not None,
        HAS_GRAD_HIDDEN=grad_hidden is not None,
        HAS_GRAD_FINAL=grad_final is not None,
        STEPS=STEPS,
        BLOCK_D=BLOCK_D,
        num_warps=1,
    )
    return grad_forget, grad_value, grad_initial
