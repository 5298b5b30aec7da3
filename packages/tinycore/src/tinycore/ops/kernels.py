"""Where the kernels of `tinykernels` are used: on an NVIDIA GPU, if that package is installed (`tinycore[kernels]`).

tinycore works without it: every operation here has a path of its own, which is also the one for CPUs and for float64.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

tinykernels: Any = None
if torch.cuda.is_available():  # importing it takes seconds, which a machine without a GPU is spared
    with contextlib.suppress(ImportError):
        import tinykernels


def usable(x: Tensor) -> bool:
    """Whether an operation on `x` goes to tinykernels."""
    return tinykernels is not None and x.device.type == "cuda" and x.dtype != torch.float64
