"""gated_scan in torch operations: two levels, in place.

Level one walks K positions of all chunks of a row at once and keeps, for each position, the state that the chunk
alone would give and the product of the gates since the chunk began. Level two carries the state from chunk to
chunk. L/K + K small steps stand where a loop has L, each over long contiguous vectors. A document begins where its
gate is set to 0; its initial state then enters through the value.
"""

import torch

from tinykernels.rows import Rows, fold

CHUNK = 16


def forward(
    forget: torch.Tensor,
    value: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns h (B, L, D) in forget's dtype and the final states (N, D) in float32 (float64 for float64)."""
    dtype = torch.promote_types(forget.dtype, torch.float32)
    rows = fold(cu_seqlens, forget.shape[0], forget.shape[1], forget.device)
    dim = forget.shape[2]
    gates = _chunks(forget, rows, dtype)  # (R, T, D)
    states = _chunks(value, rows, dtype)
    starts = (rows.starts.row, rows.starts.time)
    if initial_state is not None:
        entering = gates[starts] * initial_state[rows.starts.document].to(dtype)
        states[starts] += entering
    gates[starts] = 0
    _scan(gates, states)
    final = _initial(initial_state, rows.documents, dim, states)
    final[rows.lasts.document] = states[rows.lasts.row, rows.lasts.time]
    hidden = states[:, : rows.length].to(forget.dtype).reshape(forget.shape)
    return hidden.contiguous(), final


def backward(
    grad_hidden: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    forget: torch.Tensor,
    hidden: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of forget and value (B, L, D) and of the initial states (N, D), float32 or wider."""
    dtype = torch.promote_types(forget.dtype, torch.float32)
    rows = fold(cu_seqlens, forget.shape[0], forget.shape[1], forget.device)
    dim = forget.shape[2]
    gates = _chunks(forget, rows, dtype)
    if grad_hidden is None:
        grads = torch.zeros_like(gates)
    else:
        grads = _chunks(grad_hidden, rows, dtype)
    if grad_final is not None:
        grads[rows.lasts.row, rows.lasts.time] += grad_final[rows.lasts.document].to(dtype)
    starts = (rows.starts.row, rows.starts.time)
    first_gates = gates[starts]  # (P, D)
    gates[starts] = 0
    # g_t = dh_t + f_{t+1} g_{t+1}: the same recurrence with time reversed and the gates one step later
    later = torch.zeros_like(gates)
    later[:, :-1] = gates[:, 1:]
    later, grads = later.flip(1), grads.flip(1)
    _scan(later, grads)
    grads = grads.flip(1)
    first_grads = grads[starts]

    previous = torch.zeros_like(grads)
    previous[:, 1 : rows.length] = hidden.reshape(rows.count, rows.length, dim)[:, :-1]
    before = _initial(initial_state, rows.documents, dim, grads)
    previous[starts] = before[rows.starts.document]
    grad_forget = previous.mul_(grads)[:, : rows.length].reshape(forget.shape).to(forget.dtype)
    grad_value = grads[:, : rows.length].reshape(forget.shape).to(forget.dtype)

    grad_initial = grads.new_zeros(rows.documents, dim) if grad_final is None else grad_final.to(dtype).clone()
    grad_initial[rows.starts.document] = first_gates * first_grads
    return grad_forget.contiguous(), grad_value.contiguous(), grad_initial


def _chunks(tensor: torch.Tensor, rows: Rows, dtype: torch.dtype) -> torch.Tensor:
    """A copy (R, T, D) with the row length padded by zeros to a whole number of chunks."""
    chunk = min(CHUNK, rows.length)
    padded = -(-rows.length // chunk) * chunk
    copy = tensor.new_zeros(rows.count, padded, tensor.shape[2], dtype=dtype)
    copy[:, : rows.length] = tensor.reshape(rows.count, rows.length, tensor.shape[2])
    return copy


def _initial(initial_state: torch.Tensor | None, documents: int, dim: int, like: torch.Tensor) -> torch.Tensor:
    if initial_state is None:
        return like.new_zeros(documents, dim)
    return initial_state.to(like.dtype, copy=True)


def _scan(gates: torch.Tensor, states: torch.Tensor) -> None:
    """In place: states (R, T, D) become h; gates become their products since the chunk's begin."""
    count, length, dim = states.shape
    chunk = min(CHUNK, length)
    h = states.view(count, length // chunk, chunk, dim)
    p = gates.view(count, length // chunk, chunk, dim)
    for position in range(1, chunk):
        h[:, :, position].addcmul_(p[:, :, position], h[:, :, position - 1])
        p[:, :, position].mul_(p[:, :, position - 1])
    for index in range(1, length // chunk):
        h[:, index, -1].addcmul_(p[:, index, -1], h[:, index - 1, -1])
    h[:, 1:, :-1].addcmul_(p[:, 1:, :-1], h[:, :-1, -1:])
