"""The oracle of linear_kl_divergence: one token at a time, under plain autograd."""

import torch


def linear_kl_divergence(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    teacher_hidden: torch.Tensor,
    teacher_weight: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    reverse: bool,
    mean: bool,
) -> torch.Tensor:
    """As `tinykernels.linear_kl_divergence` for hidden (N, D), teacher_hidden (N, E), mask (N,)."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    losses = []
    for token, teacher, keep in zip(hidden.unbind(0), teacher_hidden.unbind(0), mask.tolist(), strict=True):
        if not keep:
            continue
        student_log = torch.log_softmax(weight.to(wide) @ token.to(wide) / temperature, 0)
        teacher_log = torch.log_softmax(teacher_weight.detach().to(wide) @ teacher.detach().to(wide) / temperature, 0)
        p, q = (student_log, teacher_log) if reverse else (teacher_log, student_log)
        losses.append((p.exp() * (p - q)).sum() * temperature**2)
    if not losses:
        return (hidden.sum() + weight.sum()).to(wide) * 0.0
    return torch.stack(losses).mean() if mean else torch.stack(losses).sum()
