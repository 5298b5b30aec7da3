"""Divergences between a student's and a teacher's next-token distributions (Hinton, arXiv 1503.02531; MiniLLM, 2306.08543).

With p = softmax(teacher / tau), q = softmax(student / tau), at every position that has a target:

    forward   KL(p || q) = sum_v p (log p - log q)          covers what the teacher may say
    reverse   KL(q || p) = sum_v q (log q - log p)          keeps to what the teacher does say
    Jensen-Shannon   beta KL(p || m) + (1 - beta) KL(q || m),   m = beta p + (1 - beta) q

times tau^2, which keeps the size of gradients while tau changes. A sum over tokens comes with their number, so that a mean is
per token, whatever the shape of the batch: `batchmean` over (B, T, V), as the seed's project has it, divides by B alone and
makes the loss T times too heavy. The teacher has no gradient. Everything is computed in at least float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.targets import IGNORED

Pair = tuple[Tensor, Tensor]


def forward_kl(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float = 1.0) -> Pair:
    """student, teacher (B, T, V) logits, targets (B, T), -100 where nothing is learned. Raises ValueError for other shapes."""
    p, q = _log_probabilities(student, teacher, targets, temperature)
    return _summed((p.exp() * (p - q)).sum(-1), targets, temperature)


def reverse_kl(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float = 1.0) -> Pair:
    """See `forward_kl`."""
    p, q = _log_probabilities(student, teacher, targets, temperature)
    return _summed((q.exp() * (q - p)).sum(-1), targets, temperature)


def jensen_shannon(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float = 1.0, beta: float = 0.5
) -> Pair:
    """See `forward_kl`; 0 < beta < 1 is the teacher's share of the mixture (arXiv 2306.13649)."""
    if not 0 < beta < 1:
        raise ValueError(f"beta: {beta} is not between 0 and 1")
    p, q = _log_probabilities(student, teacher, targets, temperature)
    mixture = (beta * p.exp() + (1 - beta) * q.exp()).log()
    divergence = beta * p.exp() * (p - mixture) + (1 - beta) * q.exp() * (q - mixture)
    return _summed(divergence.sum(-1), targets, temperature)


def forward_kl_top(
    student: Tensor, top_log_probabilities: Tensor, top_ids: Tensor, targets: Tensor, temperature: float = 1.0
) -> Pair:
    """Forward KL to a teacher of whom only the likeliest tokens were kept: what is left of either side's probability is
    compared as one further token.

    student (B, T, V) logits; top_log_probabilities (B, T, k), those of the teacher at this temperature, and top_ids (B, T, k)
    int64, distinct. A lower bound of `forward_kl`, equal to it where k = V. Raises ValueError for other shapes.
    """
    if top_log_probabilities.shape != top_ids.shape or top_ids.shape[:2] != student.shape[:2]:
        raise ValueError(
            f"top_ids: expected (B, T, k) as top_log_probabilities, got {tuple(top_ids.shape)} and "
            f"{tuple(top_log_probabilities.shape)} for logits {tuple(student.shape)}"
        )
    _, q = _log_probabilities(student, student.detach(), targets, temperature)
    p = top_log_probabilities.detach().to(q.dtype)
    q = q.gather(2, top_ids)
    divergence = (p.exp() * (p - q)).sum(-1)
    rest_p, rest_q = ((1 - part.exp().sum(-1)).clamp(min=torch.finfo(q.dtype).tiny) for part in (p, q))
    # with everything kept both rests are rounding
    rest = torch.where(rest_p > 1e-6, rest_p * (rest_p.log() - rest_q.log()), 0.0)
    return _summed(divergence + rest, targets, temperature)


def _log_probabilities(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's, (B, T, V)."""
    if student.shape != teacher.shape or student.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits: expected (B, T, V) of both and targets (B, T), got {tuple(student.shape)}, {tuple(teacher.shape)} "
            f"and {tuple(targets.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature: {temperature} is not above 0")
    wide = torch.promote_types(student.dtype, torch.float32)
    p, q = ((logits.to(wide) / temperature).log_softmax(-1) for logits in (teacher.detach(), student))
    return p, q


def _summed(divergence: Tensor, targets: Tensor, temperature: float) -> Pair:
    learned = targets != IGNORED
    return temperature**2 * torch.where(learned, divergence, 0).sum(), learned.sum()
