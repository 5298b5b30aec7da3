"""Cross-entropy of stablemax (arXiv 2501.04697), which grows linearly where softmax grows exponentially.

    s(x) = x + 1 for x >= 0, 1 / (1 - x) below;   p_i = s(x_i) / sum over j of s(x_j)

Computed in float64 (float32 on MPS, which has none), as TRM does: logits of a few tokens, not of a large vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.targets import IGNORED


def stablemax_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss sum, number of targets, number predicted right) of logits (N, V) and targets (N,) int64, -100 left out.

    weights (N,): of each position in both sums, None = 1.
    """
    wide = logits.to(torch.float32 if logits.device.type == "mps" else torch.float64)
    # the branch that is not taken must not divide by zero, or its gradient would be nan
    size = torch.where(wide >= 0, wide + 1, 1 / (1 - wide.clamp(max=0)))
    learned = targets != IGNORED
    chosen = size.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    losses = size.sum(-1).log() - chosen.log()
    right = (logits.argmax(-1) == targets) & learned
    if weights is not None:
        losses = losses * weights.to(losses.dtype)
    correct = right.sum() if weights is None else (right * weights.detach()).sum()
    return (
        torch.where(learned, losses, 0).sum().to(torch.promote_types(logits.dtype, torch.float32)),
        learned.sum(),
        correct,
    )
