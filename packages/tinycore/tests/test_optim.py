"""Weight decay falls on hidden matrices only, audited by name; schedules have the values that their papers draw."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import tinycore
from tinycore import testing
from tinycore.optim import adamw, constant, cosine, decay_groups, wsd


def names(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for parameter in parameters]


@pytest.mark.parametrize("tied", [True, False])
def test_decay_falls_on_hidden_matrices_only(tied: bool) -> None:
    linear = {"kind": "dense", "bias": True}
    mixer = {"kind": "attention", "heads": 4, "qk_norm": True}
    model = tinycore.build(testing.stack(mixer=mixer, linear=linear, embed={"tied": tied}))
    decayed, rest = (names(model, group["params"]) for group in decay_groups(model, 0.1))
    matrices = [f"branches.mixer.{name}.weight" for name in "qkvo"]
    matrices += [f"branches.ffn.{name}.weight" for name in ("gate", "up", "down")]
    head = [] if tied else ["heads.lm.linear.weight"]
    assert decayed == [f"layers.{layer}.{name}" for layer in range(2) for name in matrices] + head
    vectors = [name.replace("weight", "bias") for name in matrices]
    vectors += [f"branches.mixer.{name}_norm.weight" for name in "qk"]
    vectors += [f"norms.{name}.norm.weight" for name in ("mixer", "ffn")]
    expected = {"embed.weight", "norm.weight", *(f"layers.{i}.{name}" for i in range(2) for name in vectors)}
    assert set(rest) == expected
    assert len(rest) == len(expected)
    assert [group["weight_decay"] for group in decay_groups(model, 0.1)] == [0.1, 0.0]


def test_a_module_keeps_its_matrices_out_of_decay() -> None:
    class Gated(nn.Linear):
        undecayed = ("gates",)

        def __init__(self) -> None:
            super().__init__(3, 3, bias=False)
            self.gates = nn.Parameter(torch.zeros(3, 3))

    model = nn.Sequential(Gated(), nn.Linear(3, 2, bias=False))
    decayed, rest = (names(model, group["params"]) for group in decay_groups(model, 0.1))
    assert (decayed, rest) == (["0.weight", "1.weight"], ["0.gates"])


def test_frozen_and_shared_parameters() -> None:
    model = tinycore.build(testing.stack(depth={"kind": "shared", "times": 3}))
    total = sum(len(group["params"]) for group in decay_groups(model, 0.1))
    assert total == len(list(model.parameters())), "each once, however often it is called"
    model.embed.weight.requires_grad_(False)
    decayed, rest = (names(model, group["params"]) for group in decay_groups(model, 0.1))
    assert "embed.weight" not in decayed + rest
    assert len(decayed) + len(rest) == total - 1


def test_one_step_of_adamw_is_the_paper_s() -> None:
    """w <- w - lr (m^ / (sqrt(v^) + eps)) - lr wd w, decay not through the moments; vectors do not decay."""
    model = tinycore.build(testing.stack())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    adamw(model, 0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2).step()
    step = 0.01 * 0.5 / (0.5 + 1e-6)  # the first step's corrected moments are g and g^2
    for name, parameter in model.named_parameters():
        decay = 0.01 * 0.2 if parameter.ndim == 2 and name != "embed.weight" else 0.0
        expected = before[name] * (1 - decay) - step
        assert (parameter - expected).abs().max() < 1e-6, name


def test_a_model_with_nothing_to_decay() -> None:
    model = nn.Embedding(3, 2)
    assert len(adamw(model, 0.1).param_groups) == 1


@pytest.mark.parametrize("step, factor", [(0, 1 / 5), (1, 2 / 5), (3, 4 / 5), (4, 1.0), (50, 1.0), (10**6, 1.0)])
def test_constant(step: int, factor: float) -> None:
    assert constant(step, 100, warmup=4) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    "step, factor",
    [
        (0, 1 / 11),
        (9, 10 / 11),
        (10, 1.0),
        (32, 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4.5))),  # 22 of 99 steps after warm-up
        (59, 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 49 / 99))),
        (109, 0.2),
        (500, 0.2),
    ],
)
def test_cosine(step: int, factor: float) -> None:
    assert cosine(step, 110, warmup=10, final=0.2) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    "step, factor",
    [
        *[(0, 1 / 6), (4, 5 / 6), (5, 1.0), (79, 1.0), (80, 1.0)],
        *[(81, 1 - 0.9 / 19), (90, 1 - 0.9 * 10 / 19), (99, 0.1), (100, 0.1)],
    ],
)
def test_wsd(step: int, factor: float) -> None:
    """Of 100 steps 5 warm up and the last 20, from 80 to 99, go down in a straight line."""
    assert wsd(step, 100, warmup=5, decay=0.2, final=0.1) == pytest.approx(factor, abs=1e-12)


def test_schedules_without_warm_up_start_at_the_peak() -> None:
    assert constant(0, 10) == cosine(0, 10) == wsd(0, 10) == 1.0


def test_wsd_without_decay_is_constant() -> None:
    assert [wsd(step, 10, decay=0.0) for step in range(10)] == [1.0] * 10


@pytest.mark.parametrize("schedule", [constant, cosine, wsd])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0, 1, 20])
def test_factors_are_positive_until_the_last_step_and_never_above_one(
    schedule: Callable[..., float], steps: int, warmup: int
) -> None:
    factors = [schedule(step, steps, warmup=warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors[:-1])
    assert 0 <= factors[-1] <= 1
