"""The oracle of gated_scan: one multiply-add a position, in the order of time, under plain autograd."""

from itertools import pairwise

import torch


def gated_scan(
    forget: torch.Tensor,
    value: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """h_t = forget_t * h_{t-1} + value_t on (B, L, D); returns h and the final states (N, D)."""
    dtype = torch.promote_types(forget.dtype, torch.float32)
    batch, length, dim = forget.shape
    borders = [row * length for row in range(batch + 1)] if cu_seqlens is None else cu_seqlens.tolist()
    flat_forget = forget.reshape(batch * length, dim).to(dtype)
    flat_value = value.reshape(batch * length, dim).to(dtype)
    outputs, finals = [], []
    for document, (begin, end) in enumerate(pairwise(borders)):
        if initial_state is None:
            state = flat_forget.new_zeros(dim)
        else:
            state = initial_state[document].to(dtype)
        for position in range(begin, end):
            state = flat_forget[position] * state + flat_value[position]  # (D,)
            outputs.append(state)
        finals.append(state)
    hidden = torch.stack(outputs).reshape(batch, length, dim)
    return hidden.to(forget.dtype), torch.stack(finals)
