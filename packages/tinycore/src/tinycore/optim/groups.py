"""AdamW (arXiv 1711.05101) with weight decay on hidden matrices only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tinycore.optim.periodic import PeriodicAdamW


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices that decay, and embeddings, norms, biases and other vectors that do not.

    Modules with an attribute `update_period` C > 1 have two more groups for each C, with `period` C: the optimizer is
    to update their parameters once in C steps.

    A module whose matrix is no map between channels (a table of gates, the decay rates of a recurrence) keeps it out of
    decay by naming it in its attribute `undecayed`. A parameter is met once however often it is shared; frozen ones
    (requires_grad False) are left out. Order is the model's, so that the optimizer's state has a stable layout.
    """
    kept_out = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        kept_out |= {id(module.get_parameter(name)) for name in getattr(module, "undecayed", ())}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in kept_out]
    chosen = {id(p) for p in decayed}
    rest = [p for p in parameters if id(p) not in chosen]
    periods = _periods(model)
    groups: list[dict[str, Any]] = []
    for period in sorted({1, *periods.values()}):
        for members, decay in ((decayed, weight_decay), (rest, 0.0)):
            timed = [p for p in members if periods.get(id(p), 1) == period]
            groups.append({"params": timed, "weight_decay": decay, **({"period": period} if period > 1 else {})})
    return groups


def _periods(model: nn.Module) -> dict[int, int]:
    """The period of each parameter, by id, where it is not 1."""
    found: dict[int, int] = {}
    for module in model.modules():
        period = getattr(module, "update_period", 1)
        if period > 1:
            found |= {id(parameter): period for parameter in module.parameters()}
    return found


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
