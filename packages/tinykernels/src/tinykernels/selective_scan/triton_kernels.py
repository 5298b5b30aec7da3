"""selective_scan in Triton: one warp sweeps one sequence for BLOCK_D channels, the states (BLOCK_D, N) in registers.

A sweep that carries the state costs 10 to 17 instructions an element of (B, L, D, N); an associative scan costs 51
to 95 (counted in the machine code for sm_90). Each round first issues the loads of STEPS positions, then computes.

The forward saves the state every STEPS positions. The backward sweep runs from the last round to the first: it
recomputes the round's states from the saved one, keeps them in registers, and walks the gradient back. Gradients
that sum over channels (B, C) or over sequences (A, D) leave as one partial sum a program and are added up by one
reduction: no atomics, so the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl

from tinykernels.sequences import bounds

STEPS = 8  # positions a round; also the spacing of the saved states
WARPS_WANTED = 1024  # two for each of the 528 schedulers of an H100: below that, narrower programs
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["length"])
def forward_kernel(
    x,
    delta,
    A,
    B,
    C,
    D,
    z,
    initial,
    cu_seqlens,
    y,
    final,
    checkpoints,
    length,
    DIM: tl.constexpr,
    N: tl.constexpr,
    VARLEN: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    SAVE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence = tl.program_id(0)  # the grid dimension without a limit of 65535
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    begin, end = bounds(cu_seqlens, sequence, length, VARLEN)
    cell = d[:, None] * N + n[None, :]  # (BLOCK_D, BLOCK_N)
    inside = (d < DIM)[:, None] & (n < N)[None, :]
    rate = tl.load(A + cell, mask=inside, other=0.0).to(tl.float32) * LOG2E  # exp(delta A) = exp2(delta rate)
    state = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    state_offset = sequence.to(tl.int64) * (DIM * N) + cell
    if HAS_INITIAL:
        state = tl.load(initial + state_offset, mask=inside, other=0.0).to(tl.float32)
    if HAS_D:
        skip = tl.load(D + d, mask=d < DIM, other=0.0).to(tl.float32)
    # rounds of earlier sequences: floor(begin / STEPS) + sequence is at least their number, and never shared
    saved = checkpoints + (begin // STEPS + sequence) * (DIM * N) + cell
    for first in range(begin, end, STEPS):
        if SAVE:
            tl.store(saved, state, mask=inside)
            saved += DIM * N
        left = (end - first).to(tl.int32)
        left_d = tl.where(d < DIM, left, 0)  # positions left for each channel: step s is live if s < left_d
        left_n = tl.where(n < N, left, 0)
        offset = first * DIM + d
        offset_n = first * N + n
        xs = ()
        deltas = ()
        Bs = ()
        Cs = ()
        zs = ()
        for step in tl.static_range(STEPS):
            # outside the sequence delta is 0: the state passes unchanged
            deltas = deltas + (tl.load(delta + offset + step * DIM, mask=step < left_d, other=0.0),)  # noqa: RUF005
            xs = xs + (tl.load(x + offset + step * DIM, mask=step < left_d, other=0.0),)  # noqa: RUF005
            Bs = Bs + (tl.load(B + offset_n + step * N, mask=step < left_n, other=0.0),)  # noqa: RUF005
            Cs = Cs + (tl.load(C + offset_n + step * N, mask=step < left_n, other=0.0),)  # noqa: RUF005
            if HAS_Z:
                zs = zs + (tl.load(z + offset + step * DIM, mask=step < left_d, other=0.0),)  # noqa: RUF005
        for step in tl.static_range(STEPS):
            x_t = xs[step].to(tl.float32)
            delta_t = deltas[step].to(tl.float32)
            decay = tl.exp2(delta_t[:, None] * rate)
            state = decay * state + (delta_t * x_t)[:, None] * Bs[step].to(tl.float32)[None, :]
            output = tl.sum(state * Cs[step].to(tl.float32)[None, :], 1)  # (BLOCK_D,)
            if HAS_D:
                output += skip * x_t
            if HAS_Z:
                gate = zs[step].to(tl.float32)
                output *= gate * tl.sigmoid(gate)
            tl.store(y + offset + step * DIM, output.to(y.dtype.element_ty), mask=step < left_d)
    tl.store(final + state_offset, state, mask=inside)
    if SAVE:  # at most one slot lies unused before the next sequence's: leave nothing uninitialised
        for _ in range(begin // STEPS + tl.cdiv(end - begin, STEPS), end // STEPS + 1):
            tl.store(saved, state, mask=inside)
            saved += DIM * N


@triton.jit(do_not_specialize=["length", "positions"])
def backward_kernel(
    grad_y,
    grad_final,
    x,
    delta,
    A,
    B,
    C,
    D,
    z,
    cu_seqlens,
    checkpoints,
    grad_x,
    grad_delta,
    grad_A,
    grad_B,
    grad_C,
    grad_D,
    grad_z,
    grad_initial,
    length,
    positions,
    DIM: tl.constexpr,
    N: tl.constexpr,
    VARLEN: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_GRAD_FINAL: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence = tl.program_id(0)  # the grid dimension without a limit of 65535
    block = tl.program_id(1)
    d = block * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    begin, end = bounds(cu_seqlens, sequence, length, VARLEN)
    cell = d[:, None] * N + n[None, :]
    inside = (d < DIM)[:, None] & (n < N)[None, :]
    rate = tl.load(A + cell, mask=inside, other=0.0).to(tl.float32) * LOG2E
    state_offset = sequence.to(tl.int64) * (DIM * N) + cell
    carry = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)  # gradient of the state after the round
    if HAS_GRAD_FINAL:
        carry = tl.load(grad_final + state_offset, mask=inside, other=0.0).to(tl.float32)
    if HAS_D:
        skip = tl.load(D + d, mask=d < DIM, other=0.0).to(tl.float32)
        sum_D = tl.zeros((BLOCK_D,), tl.float32)
    sum_A = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    rounds = tl.cdiv(end - begin, STEPS)
    saved = checkpoints + (begin // STEPS + sequence) * (DIM * N) + cell
    partial = block.to(tl.int64) * positions * N  # this program's part of the sums over channels
    for round_behind in range(rounds):
        index = rounds - 1 - round_behind
        first = begin + index * STEPS
        left = (end - first).to(tl.int32)
        left_d = tl.where(d < DIM, left, 0)
        left_n = tl.where(n < N, left, 0)
        offset = first * DIM + d
        offset_n = first * N + n
        state = tl.load(saved + index * (DIM * N), mask=inside, other=0.0)
        xs = ()
        deltas = ()
        Bs = ()
        states = (state,)
        for step in tl.static_range(STEPS):
            deltas = deltas + (tl.load(delta + offset + step * DIM, mask=step < left_d, other=0.0),)  # noqa: RUF005
            xs = xs + (tl.load(x + offset + step * DIM, mask=step < left_d, other=0.0),)  # noqa: RUF005
            Bs = Bs + (tl.load(B + offset_n + step * N, mask=step < left_n, other=0.0),)  # noqa: RUF005
        for step in tl.static_range(STEPS):
            delta_t = deltas[step].to(tl.float32)
            entering = delta_t * xs[step].to(tl.float32)
            state = tl.exp2(delta_t[:, None] * rate) * state
            state += entering[:, None] * Bs[step].to(tl.float32)[None, :]
            states = states + (state,)  # noqa: RUF005
        for step in tl.static_range(STEPS - 1, -1, -1):
            live_d = step < left_d
            live_n = step < left_n
            # loaded again, from the cache: holding them would spill the states out of the registers
            x_t = tl.load(x + offset + step * DIM, mask=live_d, other=0.0).to(tl.float32)
            delta_t = tl.load(delta + offset + step * DIM, mask=live_d, other=0.0).to(tl.float32)
            B_t = tl.load(B + offset_n + step * N, mask=live_n, other=0.0).to(tl.float32)[None, :]
            C_t = tl.load(C + offset_n + step * N, mask=live_n, other=0.0).to(tl.float32)[None, :]
            grad = tl.load(grad_y + offset + step * DIM, mask=live_d, other=0.0).to(tl.float32)
            if HAS_Z:
                gate = tl.load(z + offset + step * DIM, mask=live_d, other=0.0).to(tl.float32)
                sigmoid = tl.sigmoid(gate)
                ungated = tl.sum(states[step + 1] * C_t, 1)
                if HAS_D:
                    ungated += skip * x_t
                grad_gate = grad * ungated * (sigmoid * (1.0 + gate * (1.0 - sigmoid)))
                tl.store(grad_z + offset + step * DIM, grad_gate.to(grad_z.dtype.element_ty), mask=live_d)
                grad *= gate * sigmoid
            tl.store(
                grad_C + partial + offset_n + step * N,
                tl.sum(grad[:, None] * states[step + 1], 0),
                mask=live_n,
            )
            carry += grad[:, None] * C_t  # now the gradient of this position's state
            tl.store(
                grad_B + partial + offset_n + step * N,
                tl.sum((delta_t * x_t)[:, None] * carry, 0),
                mask=live_n,
            )
            grad_input = tl.sum(carry * B_t, 1)  # of delta * x
            carry *= tl.exp2(delta_t[:, None] * rate)
            exponent = carry * states[step]  # gradient of delta * A
            sum_A += exponent * delta_t[:, None]
            grad_x_t = grad_input * delta_t
            if HAS_D:
                grad_x_t += grad * skip
                sum_D += grad * x_t
            # rate is A * log2(e); the sum over N is taken with it and scaled back
            grad_delta_t = grad_input * x_t + tl.sum(exponent * rate, 1) * (1.0 / LOG2E)
            tl.store(grad_x + offset + step * DIM, grad_x_t.to(grad_x.dtype.element_ty), mask=live_d)
            tl.store(grad_delta + offset + step * DIM, grad_delta_t.to(grad_delta.dtype.element_ty), mask=live_d)
    tl.store(grad_initial + state_offset, carry, mask=inside)
    tl.store(grad_A + state_offset, sum_A, mask=inside)
    if HAS_D:
        tl.store(grad_D + sequence.to(tl.int64) * DIM + d, sum_D, mask=d < DIM)


def checkpoint_count(positions: int, sequences: int) -> int:
    """How many states are saved at most: one a round begun."""
    return positions // STEPS + sequences


def block_d(sequences: int, dim: int, widest: int) -> int:
    """Channels a program: as many as leave WARPS_WANTED programs, since wide programs need fewer instructions."""
    block = widest
    while block > 8 and sequences * triton.cdiv(dim, block) < WARPS_WANTED:
        block //= 2
    return block


def forward(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns y (B, L, D), the final states (S, D, N) and, if `save`, the rounds' first states (M, D, N)."""
    batch, length, dim = x.shape
    states = A.shape[1]
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    final = torch.empty(sequences, dim, states, device=x.device, dtype=torch.float32)
    slots = checkpoint_count(batch * length, sequences) if save else 0
    checkpoints = torch.empty(slots, dim, states, device=x.device, dtype=torch.float32)
    width = block_d(sequences, dim, widest=32 if states <= 16 else 16)
    forward_kernel[(sequences, triton.cdiv(dim, width))](
        x.contiguous(),
        delta.contiguous(),
        A.contiguous(),
        B.contiguous(),
        C.contiguous(),
        None if D is None else D.contiguous(),
        None if z is None else z.contiguous(),
        None if initial_state is None else initial_state.contiguous(),
        cu_seqlens,
        y,
        final,
        checkpoints,
        length,
        DIM=dim,
        N=states,
        VARLEN=cu_seqlens is not None,
        HAS_D=D is not None,
        HAS_Z=z is not None,
        HAS_INITIAL=initial_state is not None,
        SAVE=save,
        STEPS=STEPS,
        BLOCK_D=width,
        BLOCK_N=triton.next_power_of_2(states),
        num_warps=1,
    )
    return y, final, checkpoints


def backward(
    grad_y: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    checkpoints: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Gradients of x, delta, A, B, C, D, z and the initial states; A's, D's and the states' in float32."""
    batch, length, dim = x.shape
    states = A.shape[1]
    positions = batch * length
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    width = block_d(sequences, dim, widest=16 if states <= 16 else 8)
    blocks = triton.cdiv(dim, width)
    block_n = triton.next_power_of_2(states)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=x.device, dtype=torch.float32)

    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_delta = torch.empty_like(delta, memory_format=torch.contiguous_format)
    grad_z = x.new_empty(0) if z is None else torch.empty_like(z, memory_format=torch.contiguous_format)
    parts_A, parts_D = empty(sequences, dim, states), empty(sequences, dim if D is not None else 0)
    parts_B, parts_C = empty(blocks, positions, states), empty(blocks, positions, states)
    grad_initial = empty(sequences, dim, states)
    backward_kernel[(sequences, blocks)](
        torch.zeros_like(x) if grad_y is None else grad_y.contiguous(),
        None if grad_final is None else grad_final.contiguous(),
        x.contiguous(),
        delta.contiguous(),
        A.contiguous(),
        B.contiguous(),
        C.contiguous(),
        None if D is None else D.contiguous(),
        None if z is None else z.contiguous(),
        cu_seqlens,
        checkpoints,
        grad_x,
        grad_delta,
        parts_A,
        parts_B,
        parts_C,
        parts_D,
        grad_z,
        grad_initial,
        length,
        positions,
        DIM=dim,
        N=states,
        VARLEN=cu_seqlens is not None,
        HAS_D=D is not None,
        HAS_Z=z is not None,
        HAS_GRAD_FINAL=grad_final is not None,
        STEPS=STEPS,
        BLOCK_D=width,
        BLOCK_N=block_n,
        num_warps=max(1, width * block_n // 256),  # 8 states a lane, STEPS + 1 times: more would spill
    )
    grad_B = parts_B.sum(0).to(B.dtype).reshape(B.shape)
    grad_C = parts_C.sum(0).to(C.dtype).reshape(C.shape)
    return grad_x, grad_delta, parts_A.sum(0), grad_B, grad_C, parts_D.sum(0), grad_z, grad_initial
