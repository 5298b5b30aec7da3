"""Calls of selective_scan for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.selective_scan import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Every program width, forward and backward: 8 x 2048 x 1024 with 16 states, packed, one token, 64 states."""
    calls: dict[str, Callable[[], object]] = {}
    for label, batch, length, dim, states, documents in (
        ("8x2048x1024x16", 8, 2048, 1024, 16, None),
        ("64x512x1024x16", 64, 512, 1024, 16, None),
        ("packed 32768x1024x16", 1, 32768, 1024, 16, 100),
        ("one token 4x1024x16", 4, 1, 1024, 16, None),
        ("4x512x256x64", 4, 512, 256, 64, None),
    ):
        calls |= _calls(label, batch, length, dim, states, documents)
    return calls


def _calls(
    label: str, batch: int, length: int, dim: int, states: int, documents: int | None
) -> dict[str, Callable[[], object]]:
    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    x, z = (empty(batch, length, dim, dtype=torch.bfloat16) for _ in range(2))
    B, C = (empty(batch, length, states, dtype=torch.bfloat16) for _ in range(2))
    sequences = documents or batch
    boundaries = None if documents is None else empty(documents + 1, dtype=torch.int32)
    state = None if documents is None else empty(sequences, dim, states)
    arguments = x, empty(batch, length, dim), empty(dim, states), B, C, empty(dim), z, state, boundaries
    saved = empty(triton_kernels.checkpoint_count(batch * length, sequences), dim, states)
    return {
        f"forward {label}": lambda: triton_kernels.forward(*arguments, True),
        f"backward {label}": lambda: triton_kernels.backward(x, state, *arguments, saved),
    }
