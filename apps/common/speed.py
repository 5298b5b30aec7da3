"""How fast a step was, and how much of the machine it used.

Model FLOPs utilisation (MFU) = FLOPs the model needs per second / FLOPs the devices could do per second. The need is
tinycore's closed form (forward and backward, recomputation not counted); the possible is the maker's dense figure for
the GPUs of apps/common/hardware.py, otherwise what one large matrix product reaches here, measured once. A log line
says which.
"""

from __future__ import annotations

import sys
import time

import torch

from apps.common import hardware


class Peak:
    """FLOP/s one device can do at a precision, and where the figure is from ("data sheet" or "measured")."""

    def __init__(self, device: torch.device, precision: str) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        found = hardware.of_device(name)
        if found is not None:
            self.flops, self.source = found.flops(precision), "data sheet"
            return
        self.flops, self.source = _measured(device, precision), "measured"


def _measured(device: torch.device, precision: str, size: int = 768, repeats: int = 4) -> float:
    """FLOP/s of a square matrix product: the best of a few, each a few hundredths of a second on one CPU core."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    left = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        left @ left
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read afterwards covers its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def memory_bytes(device: torch.device) -> int:
    """Most memory this process has held so far: on the device for a GPU, resident for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
