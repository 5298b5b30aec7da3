"""selective_scan in torch operations: chunks of CHUNK positions, in place, recomputed in the backward pass.

No tensor of shape (B, L, D, N) exists: one chunk of it, (K, B, N, D) with time first and the channels innermost
(sums over the N states are then sums of long vectors), lives in the cache and is walked in place. The forward
keeps the state at each chunk's begin; the backward visits the chunks in reverse, recomputes the K states and
walks the gradient back through them. A document begins where its decay is set to 0; its initial state then
enters through the input term. In a graph that the caller compiles, forward chunks have a `compiled` body.
"""

import torch

from tinykernels.rows import Places, Rows, fold
from tinykernels.selective_scan import compiled as compiled_chunk

CHUNK = 16  # positions; also the spacing of the states that the backward pass restarts from


def checkpoint_count(positions: int, sequences: int) -> int:
    """How many states are saved at most: one a chunk begun."""
    return positions // CHUNK + sequences


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
    compiled: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns y (B, L, D), the final states (S, D, N) and the states at the chunks' begins (M, D, N), whose memory
    is in the order (M, N, D)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows = fold(cu_seqlens, x.shape[0], x.shape[1], x.device)
    transition = A.to(dtype).t().contiguous()  # (N, D)
    compiled = compiled and compiled_chunk.suits(transition, rows.count)
    initial = _initial(initial_state, rows.documents, transition)
    final = initial.clone()
    positions = x.shape[0] * x.shape[1]
    checkpoints = transition.new_zeros(checkpoint_count(positions, rows.documents) if save else 0, *transition.shape)
    y = x.new_empty(rows.count, rows.length, x.shape[2])
    state = transition.new_zeros(rows.count, *transition.shape)  # (R, N, D)
    chunk_shape = (min(CHUNK, rows.length), *state.shape)  # allocated once: fresh pages cost as much as the arithmetic
    decays_buffer, states_buffer = (transition.new_empty(chunk_shape) for _ in range(2))
    x_rows, delta_rows, B_rows, C_rows = (_rows(t, rows) for t in (x, delta, B, C))
    z_rows = None if z is None else _rows(z, rows)
    for index, begin in enumerate(range(0, rows.length, CHUNK)):
        end = min(begin + CHUNK, rows.length)
        if save:
            checkpoints[index * rows.count : (index + 1) * rows.count] = state
        x_chunk, delta_chunk, B_chunk, C_chunk = (
            _time_first(t, begin, end, dtype) for t in (x_rows, delta_rows, B_rows, C_rows)
        )
        starts = rows.starts.between(begin, end)
        lasts = rows.lasts.between(begin, end)
        if compiled and end - begin == CHUNK and not lasts and (initial_state is None or not starts):
            keep = _keep(starts, x_chunk)
            output, after = compiled_chunk.outputs(x_chunk, delta_chunk, transition, B_chunk, C_chunk, state, keep)
        else:
            buffers = (decays_buffer[: end - begin], states_buffer[: end - begin])
            _, states = _states(x_chunk, delta_chunk, transition, B_chunk, state, starts, initial, buffers)
            if lasts:
                final[lasts.document] = states[lasts.time, lasts.row]
            output, after = _over_states(C_chunk, states), states[-1]  # (K, R, D)
        if D is not None:
            output.addcmul_(x_chunk, D.to(dtype))
        if z_rows is not None:
            output.mul_(torch.nn.functional.silu(_time_first(z_rows, begin, end, dtype)))
        y[:, begin:end] = output.transpose(0, 1)
        state.copy_(after)
    return y.reshape(x.shape), final.transpose(1, 2).contiguous(), checkpoints.view(-1, *A.shape)


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
    """Gradients of x, delta, A, B, C, D, z and the initial states, those of A, D and the states in float32 or
    wider. D's and z's are empty where there is no D or z."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows = fold(cu_seqlens, x.shape[0], x.shape[1], x.device)
    transition = A.to(dtype).t().contiguous()  # (N, D)
    checkpoints = checkpoints.view(-1, *transition.shape)
    initial = _initial(initial_state, rows.documents, transition)
    skip = None if D is None else D.to(dtype)
    x_rows, delta_rows, B_rows, C_rows = (_rows(t, rows) for t in (x, delta, B, C))
    z_rows = None if z is None else _rows(z, rows)
    grad_rows = None if grad_y is None else grad_y.reshape(rows.count, rows.length, -1)
    grad_x, grad_delta, grad_B, grad_C = (torch.empty_like(t) for t in (x_rows, delta_rows, B_rows, C_rows))
    grad_z = x.new_empty(0) if z_rows is None else torch.empty_like(z_rows)
    grad_A = torch.zeros_like(transition)
    grad_D = transition.new_zeros(0 if D is None else D.shape[0])
    grad_initial = torch.zeros_like(initial)
    if grad_final is not None:
        grad_initial += grad_final.transpose(1, 2)
    carry = transition.new_zeros(rows.count, *transition.shape)  # gradient of the state after the chunk
    chunk_shape = (min(CHUNK, rows.length), *carry.shape)
    decays_buffer, states_buffer, grads_buffer, scratch = (transition.new_empty(chunk_shape) for _ in range(4))
    chunks = list(enumerate(range(0, rows.length, CHUNK)))
    for index, begin in reversed(chunks):
        end = min(begin + CHUNK, rows.length)
        x_chunk, delta_chunk, B_chunk, C_chunk = (
            _time_first(t, begin, end, dtype) for t in (x_rows, delta_rows, B_rows, C_rows)
        )
        starts = rows.starts.between(begin, end)
        state = checkpoints[index * rows.count : (index + 1) * rows.count]
        buffers = (decays_buffer[: end - begin], states_buffer[: end - begin])
        decays, states = _states(x_chunk, delta_chunk, transition, B_chunk, state, starts, initial, buffers)
        if grad_rows is None:
            grad_output = torch.zeros_like(x_chunk)
        else:
            grad_output = _time_first(grad_rows, begin, end, dtype)  # (K, R, D)
        if z_rows is not None:
            gate = _time_first(z_rows, begin, end, dtype)
            sigmoid = torch.sigmoid(gate)
            ungated = _over_states(C_chunk, states)
            if skip is not None:
                ungated.addcmul_(x_chunk, skip)
            slope = sigmoid * (1 + gate * (1 - sigmoid))
            grad_z[:, begin:end] = (grad_output * ungated * slope).transpose(0, 1)
            grad_output = grad_output * gate * sigmoid
        products = scratch[: end - begin]
        grad_C[:, begin:end] = _over_channels(grad_output, states, products)

        # (K, R, N, D), becomes the gradient of the state
        grads = torch.mul(C_chunk.unsqueeze(-1), grad_output.unsqueeze(2), out=grads_buffer[: end - begin])
        lasts = rows.lasts.between(begin, end)
        if lasts and grad_final is not None:
            grads[lasts.time, lasts.row] += grad_final[lasts.document].transpose(1, 2).to(dtype)
        first_decays = decays[starts.time, starts.row]  # (P, N, D)
        decays[starts.time, starts.row] = 0
        grads[-1].add_(carry)
        for step in range(end - begin - 1, 0, -1):
            grads[step - 1].addcmul_(decays[step], grads[step])
        carry = decays[0] * grads[0]

        grad_input = _over_states(B_chunk, grads)  # (K, R, D), of delta * x
        grad_B[:, begin:end] = _over_channels(delta_chunk * x_chunk, grads, products)
        grad_x_chunk = grad_input * delta_chunk
        if skip is not None:
            grad_x_chunk.addcmul_(grad_output, skip)
            grad_D += (grad_output * x_chunk).sum((0, 1))
        grad_x[:, begin:end] = grad_x_chunk.transpose(0, 1)

        # d decay / d (delta A) = decay: the gradient of delta * A is grads * decay * previous state
        decays[1:].mul_(states[:-1])
        decays[0].mul_(state)
        if starts:
            decays[starts.time, starts.row] = first_decays * initial[starts.document]
            grad_initial[starts.document] = first_decays * grads[starts.time, starts.row]
        exponents = decays.mul_(grads)  # (K, R, N, D)
        grad_input.mul_(x_chunk).add_(torch.mul(exponents, transition, out=products).sum(2))
        grad_delta[:, begin:end] = grad_input.transpose(0, 1)
        grad_A += exponents.mul_(delta_chunk.unsqueeze(2)).sum((0, 1))
    return (
        grad_x.reshape(x.shape),
        grad_delta.reshape(x.shape),
        grad_A.t().contiguous(),
        grad_B.reshape(B.shape),
        grad_C.reshape(C.shape),
        grad_D,
        grad_z if z is None else grad_z.reshape(z.shape),
        grad_initial.transpose(1, 2).contiguous(),
    )


def _states(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    state: torch.Tensor,
    starts: Places,
    initial: torch.Tensor,
    buffers: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the buffers with one chunk's decays exp(delta A), also where a document starts, and its states, both
    (K, R, N, D)."""
    decays = torch.mul(delta.unsqueeze(2), A, out=buffers[0]).exp_()
    states = torch.mul(B.unsqueeze(-1), (delta * x).unsqueeze(2), out=buffers[1])
    first_decays = decays[starts.time, starts.row]
    if starts:
        states[starts.time, starts.row] += first_decays * initial[starts.document]
        decays[starts.time, starts.row] = 0
    states[0].addcmul_(decays[0], state)
    for step in range(1, states.shape[0]):
        states[step].addcmul_(decays[step], states[step - 1])
    if starts:
        decays[starts.time, starts.row] = first_decays
    return decays, states


def _keep(starts: Places, like: torch.Tensor) -> torch.Tensor:
    """(K, R): 0 where a document starts, 1 elsewhere."""
    keep = like.new_ones(like.shape[:2])
    if starts:
        keep[starts.time, starts.row] = 0
    return keep


def _over_channels(weights: torch.Tensor, states: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """Sum of weights (K, R, D) * states (K, R, N, D) over the channels, as (R, K, N)."""
    return torch.mul(states, weights.unsqueeze(2), out=products).sum(-1).transpose(0, 1)


def _over_states(weights: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Sum of weights (K, R, N) * states (K, R, N, D) over the states, as (K, R, D)."""
    return torch.matmul(weights.unsqueeze(2), states).squeeze(2)


def _initial(initial_state: torch.Tensor | None, documents: int, A: torch.Tensor) -> torch.Tensor:
    if initial_state is None:
        return A.new_zeros(documents, *A.shape)
    return initial_state.transpose(1, 2).to(A.dtype)


def _rows(tensor: torch.Tensor, rows: Rows) -> torch.Tensor:
    return tensor.reshape(rows.count, rows.length, tensor.shape[-1])


def _time_first(tensor: torch.Tensor, begin: int, end: int, dtype: torch.dtype) -> torch.Tensor:
    """Positions begin .. end - 1 of (R, T, D) as contiguous (K, R, D)."""
    return tensor[:, begin:end].transpose(0, 1).to(dtype).contiguous()
