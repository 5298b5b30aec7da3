"""Calls of linear_kl_divergence for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.linear_kl_divergence import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Both directions on one chunk of 768 tokens over 8192 entries."""
    logits = torch.empty(768, 8192, dtype=torch.bfloat16, device="meta")
    mask = torch.empty(768, dtype=torch.bool, device="meta")
    losses = torch.empty(768, device="meta")

    def case(reverse: bool) -> Callable[[], object]:
        return lambda: triton_kernels.divergence_and_gradient(logits, logits, mask, losses, 2.0, reverse, True)

    return {"forward": case(False), "reverse": case(True)}
