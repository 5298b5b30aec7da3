"""Parameter groups, and AdamW (arXiv 1711.05101) with weight decay on matrices between channels only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tinycore.optim.periodic import PeriodicAdamW
from tinycore.optim.roles import roles


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices that decay, and embeddings, norms, biases, tables and other vectors that do not.

    Modules with an attribute `update_period` C > 1 have two more groups for each C, with `period` C: the optimizer is
    to update their parameters once in C steps. What a parameter is, `roles` says.
    """
    found = roles(model)
    groups: list[dict[str, Any]] = []
    for period in sorted({1, *(role.period for role in found)}):
        for decays in (True, False):
            timed = [role.parameter for role in found if (role.period, role.decays) == (period, decays)]
            decay = weight_decay if decays else 0.0
            groups.append({"params": timed, "weight_decay": decay, **({"period": period} if period > 1 else {})})
    return groups


def adamw(
    model: nn.Module,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> torch.optim.AdamW:
    """AdamW over `decay_groups`, `PeriodicAdamW` where one of them has a period; fused where the device has it."""
    groups = [group for group in decay_groups(model, weight_decay) if group["params"]]
    kind = PeriodicAdamW if any("period" in group for group in groups) else torch.optim.AdamW
    return kind(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)
