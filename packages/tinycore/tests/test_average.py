"""Adam-atan2 and the average of weights, against loops over scalars."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tinycore import optim, testing
from tinycore.testing.probes import awake


def test_adam_atan2_is_the_loop_it_says() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
    late = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optim.AdamATan2([weight, late], 0.1, (0.9, 0.95), 0.5)
    expected = weight.detach().clone()
    first, second = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    for step, gradient in enumerate(torch.randn(6, 3, 2, dtype=torch.float64), 1):
        weight.grad = gradient.clone()
        late.grad = torch.ones_like(late) if step > 4 else None
        optimizer.step()
        for place in [(i, j) for i in range(3) for j in range(2)]:
            g = float(gradient[place])
            first[place] = 0.9 * first[place] + 0.1 * g
            second[place] = 0.95 * second[place] + 0.05 * g * g
            angle = math.atan2(first[place] / (1 - 0.9**step), math.sqrt(second[place] / (1 - 0.95**step)))
            expected[place] = expected[place] * (1 - 0.1 * 0.5) - 0.1 * angle
        assert (weight - expected).abs().max() < 1e-12
    once = -0.1 * math.pi / 4
    assert late.item() == pytest.approx(once * (1 - 0.05) + once), "its own count of steps"


def test_adam_atan2_does_not_care_for_the_size_of_the_loss() -> None:
    moved = []
    for size in (1e-12, 1.0, 1e12):
        weight = nn.Parameter(torch.ones(4))
        optimizer = optim.AdamATan2([weight], 0.1, weight_decay=0.0)
        for _ in range(3):
            weight.grad = size * torch.tensor([1.0, -2.0, 3.0, 0.0])
            optimizer.step()
        moved.append(weight.detach())
    assert torch.allclose(moved[0], moved[1], atol=1e-6)
    assert torch.allclose(moved[1], moved[2], atol=1e-6)
    assert moved[0][3] == 1.0


def test_adam_atan2_goes_on_from_its_state() -> None:
    def run(stop: int | None) -> torch.Tensor:
        model = nn.Linear(3, 3)
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)
        optimizer = optim.adam_atan2(model, 0.1)
        for step in range(6):
            if step == stop:
                saved = optimizer.state_dict()
                optimizer = optim.adam_atan2(model, 0.1)
                optimizer.load_state_dict(saved)
            model(torch.full((2, 3), float(step + 1))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.weight.detach()

    assert torch.equal(run(None), run(3))


def test_adam_atan2_refuses_parameters_that_wait() -> None:
    slow = awake(testing.stack(ffn={"kind": "cms", "periods": [1, 4], "hidden": 8}))
    with pytest.raises(ValueError, match="this model has slower ones"):
        optim.adam_atan2(slow, 0.1)
    with pytest.raises(ValueError, match="out of range"):
        optim.AdamATan2([nn.Parameter(torch.ones(1))], -1.0)


def test_average_is_the_average_by_hand_and_is_put_on_and_off() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = optim.WeightAverage(model, 0.9)
    by_hand = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update()
        by_hand = {name: 0.9 * old + 0.1 * model.get_parameter(name).detach().double() for name, old in by_hand.items()}
    for name, expected in by_hand.items():
        assert (average.tensors[name].double() - expected).abs().max() < 1e-6
    own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with average.applied():
        assert all(torch.equal(model.get_parameter(name), average.tensors[name]) for name in own)
    assert all(torch.equal(model.get_parameter(name), own[name]) for name in own)

    again = optim.WeightAverage(model, 0.9)
    again.load(average.tensors)
    assert all(torch.equal(again.tensors[name], average.tensors[name]) for name in own)
    with pytest.raises(ValueError, match="no average of that shape"):
        again.load({"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="decay: 1"):
        optim.WeightAverage(model, 1.0)
