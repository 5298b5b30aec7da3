"""The torch path's inner step: two chunks of logits into divergences and, in place, the student's gradient."""

import torch


def divergence_and_gradient(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    mask: torch.Tensor,
    losses: torch.Tensor,
    temperature: float,
    reverse: bool,
    needs_gradient: bool,
) -> None:
    """logits, teacher_logits (R, V), mask (R,) -> losses (R,), written; logits become the gradient of their sum."""
    student = torch.log_softmax(logits.to(losses.dtype) / temperature, -1)
    teacher = torch.log_softmax(teacher_logits.to(losses.dtype) / temperature, -1)
    ratio = student - teacher
    expected = student.exp() if reverse else teacher.exp()
    divergence = (expected * ratio).sum(-1)
    if not reverse:
        divergence = -divergence
    losses.copy_((divergence * temperature**2).masked_fill_(~mask, 0.0))
    if not needs_gradient:
        return
    if reverse:
        gradient = ratio.sub_(divergence[:, None]).mul_(expected)
    else:
        gradient = student.exp_().sub_(expected)
    logits.copy_(gradient.mul_(temperature).masked_fill_(~mask[:, None], 0.0))
