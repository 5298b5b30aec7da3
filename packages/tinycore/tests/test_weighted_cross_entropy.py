"""Weights of positions in the next-token loss: the sums, and the gradients of everything, as autograd finds them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.ops.linear_cross_entropy import linear_cross_entropy, module_cross_entropy
from tinycore.ops.stablemax import stablemax_cross_entropy

N, D, V = 13, 6, 9


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(N, D, dtype=torch.float64), torch.randn(V, D, dtype=torch.float64)
    targets = torch.randint(V, (N,))
    targets[::4] = -100
    return (
        hidden.requires_grad_(),
        weight.requires_grad_(),
        targets,
        torch.rand(N, dtype=torch.float64).requires_grad_(),
    )


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("kind", ["matrix", "module"])
def test_weighted_loss_and_gradients(kind: str, chunk: int) -> None:
    hidden, weight, targets, weights = data()
    losses = F.cross_entropy(hidden @ weight.t(), targets, ignore_index=-100, reduction="none")
    expected = torch.autograd.grad((losses * weights).sum() * 3, (hidden, weight, weights))
    if kind == "matrix":
        total, count, correct = linear_cross_entropy(hidden, weight, targets, chunk, weights)
        found = torch.autograd.grad(total * 3, (hidden, weight, weights))
    else:
        module = nn.Linear(D, V, bias=False).double()
        with torch.no_grad():
            module.weight.copy_(weight)
        total, count, correct = module_cross_entropy(hidden, module, targets, chunk, V, weights)
        found = torch.autograd.grad(total * 3, (hidden, module.weight, weights))
    assert total.item() == pytest.approx((losses * weights).sum().item(), rel=1e-12)
    assert int(count) == int((targets != -100).sum())
    right = ((hidden @ weight.t()).argmax(-1) == targets) & (targets != -100)
    assert float(correct) == pytest.approx(float((right * weights).sum()), rel=1e-12)
    for own, other in zip(found, expected, strict=True):
        assert (own - other).abs().max() < 1e-12


def test_weighted_stablemax_is_the_sum_of_its_parts() -> None:
    hidden, weight, targets, weights = data()
    logits = hidden @ weight.t()
    total, count, _ = stablemax_cross_entropy(logits, targets, weights)
    parts = [weights[n] * stablemax_cross_entropy(logits[n : n + 1], targets[n : n + 1])[0] for n in range(N)]
    assert total.item() == pytest.approx(float(sum(parts)), rel=1e-12)
    assert int(count) == int((targets != -100).sum())
