"""The chunked loss and its gradients equal brute force in float64, for any chunk size, with masked rows, and never hold
all logits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tinycore.ops.linear_cross_entropy import linear_cross_entropy


def example(
    rows: int, dim: int = 5, vocab: int = 7, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, dim, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(vocab, dim, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(vocab, (rows,), generator=draw)
    targets[::3] = -100
    return hidden, weight, targets


def by_loops(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[float, int, np.ndarray, np.ndarray]:
    """Loss sum, right predictions, and gradients with respect to hidden and weight, one row and one class at a time."""
    h, w = hidden.detach().numpy(), weight.detach().numpy()
    loss, correct, grad_h, grad_w = 0.0, 0, np.zeros_like(h), np.zeros_like(w)
    for row, target in enumerate(targets.tolist()):
        if target == -100:
            continue
        logits = [float(sum(a * b for a, b in zip(h[row], line, strict=True))) for line in w]
        total = math.fsum(math.exp(value) for value in logits)
        loss += math.log(total) - logits[target]
        correct += int(np.argmax(logits)) == target
        for k, value in enumerate(logits):
            gradient = math.exp(value) / total - (k == target)
            grad_h[row] += gradient * w[k]
            grad_w[k] += gradient * h[row]
    return loss, correct, grad_h, grad_w


@settings(deadline=None, derandomize=True, max_examples=40)
@given(rows=st.integers(1, 17), chunk=st.integers(1, 20))
def test_equals_brute_force(rows: int, chunk: int) -> None:
    hidden, weight, targets = example(rows)
    loss, count, correct = linear_cross_entropy(hidden, weight, targets, chunk)
    (3.0 * loss).backward()
    expected, right, grad_h, grad_w = by_loops(hidden, weight, targets)
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    assert count.item() == int((targets != -100).sum())
    assert correct.item() == right
    assert np.abs(hidden.grad.numpy() - 3 * grad_h).max() < 1e-10
    assert np.abs(weight.grad.numpy() - 3 * grad_w).max() < 1e-10


def test_nothing_to_learn_is_zero_loss_and_zero_gradient() -> None:
    hidden, weight, targets = example(6)
    loss, count, correct = linear_cross_entropy(hidden, weight, torch.full_like(targets, -100), 4)
    loss.backward()
    assert (loss.item(), count.item(), correct.item()) == (0.0, 0, 0)
    assert hidden.grad.abs().max() == weight.grad.abs().max() == 0


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_gets_no_gradient_and_the_other_the_same(frozen: str) -> None:
    hidden, weight, targets = example(9)
    linear_cross_entropy(hidden, weight, targets, 4)[0].backward()
    whole = {"hidden": hidden.grad.clone(), "weight": weight.grad.clone()}
    sides = {"hidden": hidden.detach(), "weight": weight.detach()}
    other = next(name for name in sides if name != frozen)
    sides[other].requires_grad_()
    linear_cross_entropy(sides["hidden"], sides["weight"], targets, 4)[0].backward()
    assert sides[frozen].grad is None
    assert torch.equal(sides[other].grad, whole[other])


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, targets = example(5)
    loss, _, _ = linear_cross_entropy(hidden * 1e4, weight, targets, 2)
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad.isfinite().all()


def test_float32_is_close_to_float64() -> None:
    hidden, weight, targets = example(33)
    low = linear_cross_entropy(hidden.float(), weight.float(), targets, 8)[0]
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(linear_cross_entropy(hidden, weight, targets, 8)[0].item(), rel=1e-6)


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_products_with_float32_sums(autocast: bool) -> None:
    """Within bfloat16's 8 bits of the float64 result; gradients arrive in the dtype of their inputs."""
    rows = 64
    hidden, weight, targets = example(rows, dim=32, vocab=50)
    expected, _, _ = linear_cross_entropy(hidden, weight, targets, 16)
    expected.backward()
    dtype = torch.float32 if autocast else torch.bfloat16
    low_hidden, low_weight = (t.detach().to(dtype).requires_grad_() for t in (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss, _, _ = linear_cross_entropy(low_hidden, low_weight, targets, 16)
    loss.backward()
    assert loss.dtype == torch.float32
    assert low_hidden.grad.dtype == low_weight.grad.dtype == dtype
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    for low, exact in ((low_hidden.grad, hidden.grad), (low_weight.grad, weight.grad)):
        assert (low.double() - exact).norm() < 2e-2 * exact.norm()


class Largest(TorchDispatchMode):
    """Elements of the largest tensor and the number of matrix products while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = self.products = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        for item in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(item, Tensor):
                self.elements = max(self.elements, item.numel())
        return out


def test_logits_of_one_chunk_at_a_time() -> None:
    hidden, weight, targets = example(64, dim=4, vocab=100)
    with Largest() as seen:
        linear_cross_entropy(hidden, weight, targets, 8)[0].backward()
    assert seen.elements == 8 * 100  # of 64 * 100 logits
    assert seen.products == 3 * 8


def test_without_gradients_only_the_logits_are_computed() -> None:
    hidden, weight, targets = example(64, dim=4, vocab=100)
    with torch.no_grad(), Largest() as seen:
        loss, _, _ = linear_cross_entropy(hidden, weight, targets, 8)
    assert not loss.requires_grad
    assert seen.products == 8
