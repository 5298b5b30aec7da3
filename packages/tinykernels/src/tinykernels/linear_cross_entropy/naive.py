"""The oracle of linear_cross_entropy: one token at a time, under plain autograd."""

import torch


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int,
    softcap: float | None,
    z_loss: float,
    mean: bool,
) -> torch.Tensor:
    """As `tinykernels.linear_cross_entropy` for hidden (N, D), targets (N,)."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    losses = []
    for token, target in zip(hidden.unbind(0), targets.tolist(), strict=True):
        if target == ignore_index:
            continue
        logits = weight.to(wide) @ token.to(wide)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        normaliser = torch.logsumexp(logits, 0)
        losses.append(normaliser - logits[target] + z_loss * normaliser**2)
    if not losses:
        return (hidden.sum() + weight.sum()).to(wide) * 0.0
    return torch.stack(losses).mean() if mean else torch.stack(losses).sum()
