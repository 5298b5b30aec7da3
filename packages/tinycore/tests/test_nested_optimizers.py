"""Deep momentum and delta gradient descent: what they reduce to, the printed rules written out, convergence, exact resuming."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tinycore
from tinycore import testing
from tinycore.optim import deep_momentum, delta_gd, muon
from tinycore.optim.newton_schulz import orthogonalised


class Plain(nn.Module):
    """Two matrices, one of them tall, and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).square().mean()


def drawn(step: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step))


def trained(make: Any, steps: int, stop: int | None = None, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = Plain()
    optimizer = make(model, 0.02, **options)
    for step in range(steps):
        if step == stop:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = make(model, 0.02, **options)
            optimizer.load_state_dict(saved)
        model(drawn(step, 8, 6)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("off", [{"hidden": 0}, {"inner_rate": 0.0}])
@pytest.mark.parametrize("cautious", [False, True])
def test_a_memory_that_learns_nothing_is_momentum(off: dict[str, Any], cautious: bool) -> None:
    assert same(
        trained(deep_momentum, 7, cautious=cautious, **off), trained(muon, 7, nesterov=False, cautious=cautious)
    )
    assert not same(trained(deep_momentum, 7, cautious=cautious), trained(muon, 7, nesterov=False, cautious=cautious))


def test_the_memory_descends_as_autograd_says() -> None:
    """Three steps of one tall matrix, with the memory's gradients by autograd in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5, bias=False)).double()
    weight = model[0].weight
    optimizer = deep_momentum(model, 0.1, momentum=0.8, hidden=4, inner_rate=0.3, keep=0.9, weight_decay=0.0)
    average, expected = torch.zeros(3, 5, dtype=torch.float64), weight.detach().clone()
    a = b = torch.empty(0)
    for step in range(3):
        weight.grad = drawn(step, 5, 3).double()
        gradient = weight.grad.mT.clone()  # rows: the shorter side
        if step == 0:
            a = torch.randn(4, 5, generator=torch.Generator().manual_seed(5)).double()
            b = torch.zeros(5, 4, dtype=torch.float64)
        average = 0.8 * average + 0.2 * gradient
        scale = gradient.norm() / 3**0.5
        key = gradient / gradient.norm(dim=1, keepdim=True)
        a, b = a.requires_grad_(), b.requires_grad_()

        def told(a: Tensor, b: Tensor, key: Tensor = key) -> Tensor:
            return torch.nn.functional.silu(key @ a.T) @ b.T

        loss = (told(a, b) - (gradient - average) / scale).square().sum(1).mean() / 2
        of_a, of_b = torch.autograd.grad(loss, (a, b))
        a, b = (0.9 * (a - 0.3 * of_a)).detach(), (0.9 * (b - 0.3 * of_b)).detach()
        direction = orthogonalised((average + scale * told(a, b))[None])[0].mT
        expected = expected - 0.1 * 0.2 * 5**0.5 * direction
        optimizer.step()
        assert (weight - expected).abs().max() < 1e-12
    assert b.abs().max() > 1e-3  # it has learned something


def test_the_delta_rule_written_out() -> None:
    """W (I - eta' x x^T) - eta G for one input of any length."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, bias=False)).double()
    weight = model[0].weight
    optimizer = delta_gd(model, 0.5, momentum=0.0, scale=1.0, forgetting=1.0)
    for step in range(3):
        x, before = drawn(step, 1, 4).double(), weight.detach().clone()
        (gradient,) = torch.autograd.grad(model(x).sum() ** 2, weight)  # which is heard, too: the same input twice
        model(x).sum().square().backward()
        optimizer.step()
        optimizer.zero_grad()
        unit = x / x.norm()
        expected = before @ (torch.eye(4, dtype=torch.float64) - 0.5 / 1.5 * unit.T @ unit) - 0.5 * gradient
        assert (weight - expected).abs().max() < 1e-6  # what was met is kept in float32


@pytest.mark.parametrize("how", ["no input", "no forgetting"])
def test_it_reduces_to_gradient_descent(how: str) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 3, bias=False))
    theirs = copy.deepcopy(ours)
    mine = delta_gd(ours, 0.1, momentum=0.0, scale=1.0, forgetting=0.0 if how == "no forgetting" else 1.0)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for step in range(4):
        x = torch.zeros(2, 4) if how == "no input" else drawn(step, 2, 4)
        ours(x), theirs(x)
        ours[0].weight.grad = theirs[0].weight.grad = drawn(step, 3, 4)
        mine.step(), other.step()
        assert torch.equal(ours[0].weight, theirs[0].weight)


@pytest.mark.parametrize("make", [delta_gd, deep_momentum])
def test_a_quadratic_is_minimised(make: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5, bias=False))
    target = drawn(9, 5, 5)
    options = {"forgetting": 0.01, "scale": 10.0} if make is delta_gd else {"weight_decay": 0.0}
    rate = 0.05 if make is delta_gd else 0.2  # orthogonalised steps have the rate's length, however far it is
    optimizer = make(model, rate, **options)
    inputs = drawn(1, 64, 5)
    losses = []
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / 200)
        loss = (model(inputs) - inputs @ target.T).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("make", [delta_gd, deep_momentum])
def test_a_saved_state_goes_on_bit_for_bit(make: Any, stop: int) -> None:
    assert same(trained(make, 6), trained(make, 6, stop))


@pytest.mark.parametrize("make", [delta_gd, deep_momentum])
@pytest.mark.parametrize("mixer", [{"kind": "attention", "heads": 4}, {"kind": "mamba", "state": 4}])
def test_a_decoder_learns(make: Any, mixer: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = tinycore.build(testing.stack(mixer=mixer))
    optimizer = make(model, 0.01)
    tokens = torch.randint(32, (4, 17), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(40):
        loss = model(tokens[:, :-1], targets=tokens[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_what_was_met_before_a_state_is_loaded_or_is_not_finite_is_not_learned_from() -> None:
    def stepped(spoil: str) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5, bias=False))
        optimizer = delta_gd(model, 0.02)
        if spoil == "load":
            model(drawn(1, 8, 6))
            optimizer.load_state_dict(optimizer.state_dict())
        if spoil == "inf":
            model(torch.full((8, 6), torch.inf))
        model(drawn(0, 8, 6)).square().mean().backward()
        optimizer.step()
        return model

    assert same(stepped("load"), stepped("nothing"))
    assert all(weight.isfinite().all() for weight in stepped("inf").parameters())


def test_a_memory_of_other_matrices_is_refused() -> None:
    model = Plain()
    optimizer = deep_momentum(model, 0.02)
    model(drawn(0, 8, 6)).backward()
    optimizer.step()
    with pytest.raises(ValueError, match="is not one of 4 units"):
        deep_momentum(Plain(), 0.02, hidden=4).load_state_dict(optimizer.state_dict())


def test_a_model_without_such_matrices_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden nn\.Linear matrices"):
        delta_gd(nn.Sequential(nn.LayerNorm(3)), 0.1)
