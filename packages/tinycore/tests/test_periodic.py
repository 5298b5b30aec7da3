"""Periodic AdamW: between due steps nothing moves, on them it is AdamW with the mean gradient; without periods it is
torch.optim.AdamW bit for bit; interrupted inside a window it goes on exactly.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tinycore
from tinycore import testing
from tinycore.optim import PeriodicAdamW, adamw, decay_groups

SETTINGS: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.2}


def gradients(steps: int, size: int = 5) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=draw) for _ in range(steps)]


def start(count: int = 1) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(5, generator=draw)) for _ in range(count)]


def test_due_steps_are_adamw_with_the_mean_of_the_window() -> None:
    """Against the formula in float64, with the learning rate of the due step."""
    (parameter,) = start()
    optimizer = PeriodicAdamW([{"params": [parameter], "period": 3}], **SETTINGS)
    w = parameter.detach().double().clone()
    m, v = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    window: list[Tensor] = []
    for step, gradient in enumerate(gradients(12), 1):
        rate = optimizer.param_groups[0]["lr"] = 0.1 / step
        parameter.grad = gradient.clone()
        before = parameter.detach().clone()
        optimizer.step()
        optimizer.zero_grad()
        window.append(gradient.double())
        if step % 3:
            assert torch.equal(parameter, before)
            continue
        mean, due = torch.stack(window).mean(0), step // 3
        window = []
        m = 0.8 * m + 0.2 * mean
        v = 0.9 * v + 0.1 * mean * mean
        w = w * (1 - rate * 0.2) - rate * (m / (1 - 0.8**due)) / ((v / (1 - 0.9**due)).sqrt() + 1e-6)
        assert (parameter - w).abs().max() < 1e-5


def trained(model: tinycore.Decoder, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        row = testing.single_rows(model.config, 2, 12, step).tokens
        model(row, targets=row).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def cms(*periods: int) -> tinycore.Decoder:
    torch.manual_seed(0)
    return tinycore.build(testing.stack(ffn={"kind": "cms", "hidden": 10, "periods": list(periods)}))


def test_periods_of_one_are_torch_s_adamw() -> None:
    assert type(adamw(cms(1, 1), 0.1)) is torch.optim.AdamW
    assert type(adamw(tinycore.build(testing.stack()), 0.1)) is torch.optim.AdamW
    one, other = cms(1, 1), cms(1, 1)
    groups = decay_groups(other, 0.1)
    trained(one, adamw(one, 1e-2, weight_decay=0.1), 0, 6)
    ours = PeriodicAdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=True)
    trained(other, ours, 0, 6)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, dict(other.named_parameters())[name]), name
    assert all(set(state) == {"step", "exp_avg", "exp_avg_sq"} for state in ours.state.values())


def test_a_level_that_is_not_due_does_not_change_the_others() -> None:
    """Group by group: with the slow level frozen the fast ones take the same steps up to its first update."""
    slow, frozen = cms(1, 4), cms(1, 4)
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad_("levels.1." not in name)
    # unclipped: the norm of the gradient is over all parameters
    for model in (slow, frozen):
        optimizer = adamw(model, 1e-2)
        for step in range(3):
            row = testing.single_rows(model.config, 2, 12, step).tokens
            model(row, targets=row).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    for name, parameter in slow.named_parameters():
        assert torch.equal(parameter, dict(frozen.named_parameters())[name]), name


@pytest.mark.parametrize("stop", range(1, 9))
def test_resuming_inside_a_window_is_exact(stop: int) -> None:
    whole, first = cms(1, 2, 4), cms(1, 2, 4)
    trained(whole, adamw(whole, 1e-2), 0, 10)
    optimizer = adamw(first, 1e-2)
    trained(first, optimizer, 0, stop)
    second = cms(1, 2, 4)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = adamw(second, 1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    trained(second, resumed, stop, 10)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, dict(second.named_parameters())[name]), name


def test_groups_by_period() -> None:
    model = cms(1, 3, 7)
    known = {id(p): n for n, p in model.named_parameters()}
    groups = decay_groups(model, 0.1)
    assert [(g["weight_decay"], g.get("period")) for g in groups] == [
        (0.1, None),
        (0.0, None),
        (0.1, 3),
        (0.0, 3),
        (0.1, 7),
        (0.0, 7),
    ]
    for level, (matrices, vectors) in ((1, groups[2:4]), (2, groups[4:])):
        assert {known[id(p)].split(".ffn.")[1] for p in matrices["params"]} == {
            f"levels.{level}.mlp.{name}.weight" for name in ("gate", "up", "down")
        }
        assert {known[id(p)].split(".ffn.")[1] for p in vectors["params"]} == {f"levels.{level}.norm.weight"}
    assert sum(len(group["params"]) for group in groups) == len(known)


def test_a_gradient_that_is_missing_counts_as_zero() -> None:
    one, other = start(), start()
    for parameters, missing in ((one, None), (other, torch.zeros(5))):
        optimizer = PeriodicAdamW([{"params": parameters, "period": 2}], **SETTINGS)
        for gradient in (torch.ones(5), missing):
            parameters[0].grad = gradient
            optimizer.step()
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[0], start()[0])


@pytest.mark.parametrize("waited", [-1, 2, 10**30, "1", 0.5, True])
def test_a_window_that_is_none_is_refused(waited: Any) -> None:
    parameters = start()
    optimizer = PeriodicAdamW([{"params": parameters, "period": 2}], **SETTINGS)
    saved = optimizer.state_dict()
    saved["state"] = {0: {"waited": waited}}
    with pytest.raises(ValueError, match="steps waited of a period of 2"):
        optimizer.load_state_dict(saved)


def test_a_sum_of_another_shape_is_refused() -> None:
    optimizer = PeriodicAdamW([{"params": start(), "period": 2}], **SETTINGS)
    saved = optimizer.state_dict()
    saved["state"] = {0: {"waited": 1, "gathered": torch.zeros(1)}}
    with pytest.raises(ValueError, match="shape"):
        optimizer.load_state_dict(saved)
