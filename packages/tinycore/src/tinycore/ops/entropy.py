"""Entropy of next-token predictions, in nats, without holding all logits at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tinycore.ops.linear_cross_entropy import chunk_of


@torch.no_grad()
def entropy(hidden: Tensor, readout: Callable[[Tensor], Tensor], vocab_size: int) -> Tensor:
    """-sum p log p (B, T), in at least float32, of p = softmax(readout(h)) for hidden (B, T, D); readout: (N, D) -> (N, V)."""
    flat = hidden.flatten(0, 1)
    found = []
    for part in flat.split(chunk_of(vocab_size, hidden.device.type)):
        logits = readout(part)
        logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        found.append(-(logs.exp() * logs).sum(-1))
    return torch.cat(found).view(hidden.shape[:2])
