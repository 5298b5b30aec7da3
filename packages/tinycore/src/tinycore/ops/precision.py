"""In which precision an operation's matrix products run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products with x: autocast's where autocast is on for x's device, x's own elsewhere."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Products in it run in the dtype they are given, autocast or not."""
    device = x.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
