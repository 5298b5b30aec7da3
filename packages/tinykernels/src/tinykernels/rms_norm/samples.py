"""Calls of rms_norm for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.rms_norm import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Forward and backward at 32768 x 512, plain and with a residual, and at an odd width."""
    x = torch.empty(32768, 512, dtype=torch.bfloat16, device="meta")
    weight = torch.empty(512, device="meta")
    scale = torch.empty(32768, device="meta")
    wide = torch.empty(1000, 1400, device="meta")
    return {
        "forward": lambda: triton_kernels.forward(x, weight, None, 1e-5),
        "forward with residual": lambda: triton_kernels.forward(x, weight, x, 1e-5),
        "forward 1400 float32": lambda: triton_kernels.forward(wide, None, None, 1e-5),
        "backward": lambda: triton_kernels.backward(x, None, x, weight, scale),
        "backward with residual": lambda: triton_kernels.backward(x, x, x, weight, scale),
    }
