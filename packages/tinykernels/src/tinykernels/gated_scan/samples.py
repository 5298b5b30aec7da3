"""Calls of gated_scan for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.gated_scan import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Forward and backward at 32 x 1024 x 512, packed with states, and in float32."""
    x = torch.empty(32, 1024, 512, dtype=torch.bfloat16, device="meta")
    packed = torch.empty(1, 32768, 512, dtype=torch.bfloat16, device="meta")
    wide = torch.empty(2, 1000, 200, device="meta")
    states = torch.empty(100, 512, device="meta")
    boundaries = torch.empty(101, dtype=torch.int32, device="meta")
    return {
        "forward": lambda: triton_kernels.forward(x, x, None, None),
        "forward packed": lambda: triton_kernels.forward(packed, packed, states, boundaries),
        "forward 200 float32": lambda: triton_kernels.forward(wide, wide, None, None),
        "backward": lambda: triton_kernels.backward(x, None, x, x, None, None),
        "backward packed": lambda: triton_kernels.backward(packed, states, packed, packed, states, boundaries),
        "backward 200 float32": lambda: triton_kernels.backward(wide, None, wide, wide, None, None),
    }
