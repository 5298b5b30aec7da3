"""What a kernel's tile sizes depend on: the compute capability and the shared memory one program may use.

The ahead-of-time compile check has no GPU and asks for other cards' choices: `assume(capability)` answers
for them.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import torch

# bytes a block may use after opting in: CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability"
SHARED_MEMORY = {
    (7, 5): 65536,
    (8, 0): 166912,
    (8, 6): 101376,
    (8, 7): 166912,
    (8, 9): 101376,
    (9, 0): 232448,
    (10, 0): 232448,
    (12, 0): 101376,
}
SMALLEST = 101376
_assumed: list[tuple[int, int]] = []


def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of the device; (8, 6), the tightest supported card, where kernels are interpreted."""
    if _assumed:
        return _assumed[-1]
    return _query(device.index or 0) if device.type == "cuda" else (8, 6)


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory one program may use on the device; the smallest known for an unknown card."""
    return SHARED_MEMORY.get(capability(device), SMALLEST)


@contextmanager
def assume(target: tuple[int, int]) -> Generator[None]:
    """Choose tiles for a card of capability `target` within the block."""
    _assumed.append(target)
    try:
        yield
    finally:
        _assumed.pop()


@cache
def _query(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)
