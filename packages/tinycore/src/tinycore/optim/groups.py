"""AdamW (arXiv 1711.05101) with weight decay on hidden matrices only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices that decay, and embeddings, norms, biases and other vectors that do not.

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
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


def adamw(
    model: nn.Module,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> torch.optim.AdamW:
    """AdamW over `decay_groups`; fused where the parameters' device has it."""
    groups = [group for group in decay_groups(model, weight_decay) if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)
