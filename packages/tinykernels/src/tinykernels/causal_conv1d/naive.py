"""The oracle of causal_conv1d: one position and one tap at a time, plain autograd."""

from itertools import pairwise

import torch
from torch.nn import functional


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """y (B, L, D) in x's dtype."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    batch, length, dim = x.shape
    width = weight.shape[1]
    borders = [row * length for row in range(batch + 1)] if cu_seqlens is None else cu_seqlens.tolist()
    flat = x.reshape(batch * length, dim).to(dtype)
    outputs = []
    for document, (begin, end) in enumerate(pairwise(borders)):
        for t in range(begin, end):
            output = flat.new_zeros(dim)
            for tap in range(width):
                source = t - (width - 1) + tap
                if source >= begin:
                    output = output + weight[:, tap].to(dtype) * flat[source]
                elif initial_state is not None:
                    slot = source - begin + width - 1
                    output = output + weight[:, tap].to(dtype) * initial_state[document, slot].to(dtype)
            if bias is not None:
                output = output + bias.to(dtype)
            outputs.append(functional.silu(output) if silu else output)
    return torch.stack(outputs).reshape(batch, length, dim).to(x.dtype)
