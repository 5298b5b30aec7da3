"""Calls of linear_cross_entropy for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.linear_cross_entropy import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """One chunk of 1536 tokens over 8192 entries, and 50257 entries with a soft cap."""

    def case(vocabulary: int, softcap: float | None, dtype: torch.dtype) -> Callable[[], object]:
        logits = torch.empty(1536, vocabulary, dtype=dtype, device="meta")
        targets = torch.empty(1536, dtype=torch.int64, device="meta")
        losses = torch.empty(1536, device="meta")
        return lambda: triton_kernels.loss_and_gradient(logits, targets, losses, -100, softcap, 1e-4, True)

    return {
        "8192": case(8192, None, torch.bfloat16),
        "8192 float32": case(8192, None, torch.float32),
        "50257 softcap": case(50257, 30.0, torch.bfloat16),
    }
