"""In which precision an operation's matrix products run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products with x: autocast's where autocast is on for x's device, x's own elsewhere."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Where products of float32 tensors stay float32 under autocast too: what is summed over a sequence needs it."""
    device = x.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
