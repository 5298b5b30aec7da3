"""M3 is Muon without its slow half, the printed algorithm with averages otherwise, and goes on inside a window."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinycore.optim import m3, muon
from tinycore.optim.newton_schulz import orthogonalised


class Plain(nn.Module):
    """Two matrices, one of them tall, and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).square().mean()


def trained(make: Any, steps: int, stop: int | None = None, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Plain()
    optimizer = make(model, 0.02, **options)
    for step in range(steps):
        if step == stop:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = make(model, 0.02, **options)
            optimizer.load_state_dict(saved)
        model(torch.randn(8, 6, generator=torch.Generator().manual_seed(step))).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("cautious", [False, True])
def test_without_its_slow_half_it_is_muon(cautious: bool) -> None:
    ours, _ = trained(m3, 9, slow_share=0.0, cautious=cautious)
    theirs, _ = trained(muon, 9, cautious=cautious)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("second", [None, 0.9])
def test_is_the_algorithm_written_out(second: float | None) -> None:
    options = {"momentum": 0.8, "nesterov": False, "slow_period": 3, "slow_momentum": 0.6, "slow_share": 0.7}
    torch.manual_seed(0)
    model = Plain()
    optimizer = m3(model, 0.02, second_moment=second, weight_decay=0.1, **options)
    weight = model.layers[1].weight
    expected = weight.detach().clone()
    fast, slow, square, window = (torch.zeros_like(expected) for _ in range(4))
    direction = torch.zeros_like(expected)
    for step in range(1, 9):
        model(torch.randn(8, 6, generator=torch.Generator().manual_seed(step))).backward()
        gradient = weight.grad.clone()
        fast = 0.8 * fast + 0.2 * gradient
        window = window + gradient
        if step % 3 == 0:
            slow = 0.6 * slow + 0.4 * window / 3
            window = torch.zeros_like(window)
            direction = orthogonalised(slow[None])[0]
        update = orthogonalised(fast[None])[0] + 0.7 * direction
        if second is not None:
            square = second * square + (1 - second) * gradient**2
            update = update / (square.sqrt() + 1e-8)
            update = update * (4**0.5 / update.norm())
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * 0.2 * 10**0.5 * update
        optimizer.step()
        optimizer.zero_grad()
        assert (weight - expected).abs().max() < 1e-5, step


def test_the_slow_momentum_rests_between_its_steps() -> None:
    seen = []
    for steps in range(1, 8):
        model, optimizer = trained(m3, steps, slow_period=3)
        seen.append(optimizer.state[model.layers[0].weight]["slow"].clone())
    changes = [not torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert changes == [False, True, False, False, True, False]


@pytest.mark.parametrize("stop", [2, 3, 4])
@pytest.mark.parametrize("second", [None, 0.9])
def test_goes_on_inside_a_window(stop: int, second: float | None) -> None:
    whole, _ = trained(m3, 8, slow_period=3, second_moment=second)
    halves, _ = trained(m3, 8, stop, slow_period=3, second_moment=second)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))
