"""Looking further ahead than the next token, without crossing a document.

Labels are shifted in exactly one place, where batches are made: `targets[t] = tokens[t + 1]`. Heads that predict tokens
further ahead derive their targets from those, here and only here.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100


def ahead(targets: Tensor, doc_ids: Tensor | None, steps: int) -> Tensor:
    """Targets `steps` further ahead: `targets[t + steps]`, or -100 beyond the row's end or in another document.

    targets (B, T) int64, doc_ids (B, T) int64 or None; `steps` 0 returns the targets themselves. Returns (B, T).
    Raises ValueError for negative steps.
    """
    if steps < 0:
        raise ValueError(f"ahead: steps must not be negative, got {steps}")
    if steps == 0:
        return targets
    shifted = torch.full_like(targets, IGNORED)
    shifted[:, :-steps] = targets[:, steps:]
    if doc_ids is not None:
        same = torch.zeros_like(targets, dtype=torch.bool)
        same[:, :-steps] = doc_ids[:, steps:] == doc_ids[:, :-steps]
        shifted = torch.where(same, shifted, IGNORED)
    return shifted
