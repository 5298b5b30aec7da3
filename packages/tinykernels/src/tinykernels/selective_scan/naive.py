"""The oracle of selective_scan: the recurrence as the paper writes it, one position at a time, plain autograd."""

from itertools import pairwise

import torch
from torch.nn import functional


def selective_scan(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y (B, L, D) in x's dtype and the final states (S, D, N); delta is the step size itself, > 0."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    batch, length, dim = x.shape
    borders = [row * length for row in range(batch + 1)] if cu_seqlens is None else cu_seqlens.tolist()
    x_flat, delta_flat = (t.reshape(batch * length, dim).to(dtype) for t in (x, delta))
    B_flat, C_flat = (t.reshape(batch * length, -1).to(dtype) for t in (B, C))
    transition = A.to(dtype)  # (D, N)
    outputs, finals = [], []
    for document, (begin, end) in enumerate(pairwise(borders)):
        if initial_state is None:
            state = torch.zeros_like(transition)
        else:
            state = initial_state[document].to(dtype)  # (D, N)
        for t in range(begin, end):
            decay = torch.exp(delta_flat[t, :, None] * transition)  # (D, N)
            state = decay * state + (delta_flat[t] * x_flat[t])[:, None] * B_flat[t]
            outputs.append(state @ C_flat[t])  # (D,)
        finals.append(state)
    y = torch.stack(outputs)
    if D is not None:
        y = y + D.to(dtype) * x_flat
    if z is not None:
        y = y * functional.silu(z.reshape(batch * length, dim).to(dtype))
    return y.reshape(batch, length, dim).to(x.dtype), torch.stack(finals)
