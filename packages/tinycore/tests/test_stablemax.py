"""Stablemax cross-entropy against its formula, cell by cell, and its gradient against finite differences."""

from __future__ import annotations

import math

import torch

from tinycore.ops.stablemax import stablemax_cross_entropy


def test_equals_the_formula() -> None:
    logits = torch.tensor([[0.0, 3.0, -2.0], [5.0, -1.0, 0.5], [1.0, 1.0, 1.0]])
    targets = torch.tensor([1, 2, -100])

    def size(x: float) -> float:
        return x + 1 if x >= 0 else 1 / (1 - x)

    expected = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if target >= 0:
            expected -= math.log(size(row[target]) / sum(map(size, row)))
    loss, count, correct = stablemax_cross_entropy(logits, targets)
    assert abs(loss.item() - expected) < 1e-6
    assert (count.item(), correct.item()) == (2, 1)


def test_gradient_is_finite_on_both_sides_of_zero_and_far_out() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, 1, 2, -100])
    torch.autograd.gradcheck(lambda x: stablemax_cross_entropy(x, targets)[0], logits)
    far = torch.tensor([[1e30, -1e30, 1.0, 0.0]], requires_grad=True)
    stablemax_cross_entropy(far, torch.tensor([1]))[0].backward()
    assert far.grad.isfinite().all()
