"""InfoNCE (arXiv 1807.03748), both ways: which of the targets is mine, and which of the predictions is?

    S_ij = z_i . y_j / tau;   loss_i = (-log softmax(S)_ii - log softmax(S^T)_ii) / 2

over pairs i that are present. Pair i is compared with itself and with those present that are not the `same` as it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(
    predicted: Tensor, target: Tensor, temperature: Tensor | float, present: Tensor, same: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(sum of the loss, how many predictions have their own target nearest, number of pairs).

    predicted, target (N, J); present (N,) bool: pairs that count; same (N, N) bool: pairs that are no negatives of one another.
    With all similarities equal the loss of a pair is ln of the number of pairs it is compared with, itself included.
    """
    wide = torch.promote_types(predicted.dtype, torch.float32)
    scores = predicted.to(wide) @ target.to(wide).t() / temperature
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    compared = itself | (present[None, :] & present[:, None] & ~same)
    scores = scores.masked_fill(~compared, -torch.inf)
    own = scores.diagonal()
    losses = (scores.logsumexp(1) + scores.logsumexp(0)) / 2 - own
    hits = scores.argmax(1) == torch.arange(len(scores), device=scores.device)
    return torch.where(present, losses, 0).sum(), (hits & present).sum(), present.sum()
