"""Calls of causal_conv1d for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.causal_conv1d import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Forward and backward with 4 taps at 32 x 1024 x 1024, packed with states, and with 8 taps in float32."""
    x = torch.empty(32, 1024, 1024, dtype=torch.bfloat16, device="meta")
    packed = torch.empty(1, 32768, 1024, dtype=torch.bfloat16, device="meta")
    weight, bias = torch.empty(1024, 4, device="meta"), torch.empty(1024, device="meta")
    states = torch.empty(100, 3, 1024, dtype=torch.bfloat16, device="meta")
    boundaries = torch.empty(101, dtype=torch.int32, device="meta")
    wide, eight = torch.empty(2, 1000, 200, device="meta"), torch.empty(200, 8, device="meta")
    return {
        "forward": lambda: triton_kernels.forward(x, weight, bias, None, None, True),
        "forward packed": lambda: triton_kernels.forward(packed, weight, bias, states, boundaries, True),
        "forward 8 taps": lambda: triton_kernels.forward(wide, eight, None, None, None, True),
        "backward": lambda: triton_kernels.backward(x, x, weight, bias, None, None, True),
        "backward packed": lambda: triton_kernels.backward(packed, packed, weight, bias, states, boundaries, True),
        "backward 8 taps": lambda: triton_kernels.backward(wide, wide, eight, None, None, None, True),
    }
