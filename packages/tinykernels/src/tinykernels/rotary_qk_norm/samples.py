"""Calls of rotary_qk_norm for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.rotary_qk_norm import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Forward and backward at 32 x 1024 with 8/2 heads of 64, with weights, and of 36 without."""

    def case(size: int, weighted: bool) -> Callable[[], object]:
        q = torch.empty(32, 1024, 8, size, dtype=torch.bfloat16, device="meta")
        k = torch.empty(32, 1024, 2, size, dtype=torch.bfloat16, device="meta")
        angles = torch.empty(1, 1024, size // 2, device="meta")
        weight = torch.empty(size, device="meta") if weighted else None

        def call() -> None:
            triton_kernels.forward(q, k, angles, angles, weight, weight, 1e-5)
            triton_kernels.backward(q, k, q, k, angles, angles, weight, weight, 1e-5)

        return call

    return {"64": case(64, True), "36": case(36, False)}
