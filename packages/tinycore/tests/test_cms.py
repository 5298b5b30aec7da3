"""Continuum memory: both forms equal their formula in float64, equal branches are the plain feed-forward for any gate,
and levels learn in their own time.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.testing.probes import awake, single_rows


def config(**ffn: Any) -> tinycore.ModelConfig:
    return testing.stack(ffn={"kind": "cms", "hidden": 10, **ffn})


def tokens() -> Tensor:
    return torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(module: Any, x: Tensor) -> Tensor:
    return module(x, {}, Context(torch.arange(x.shape[1])[None]), None)[0]


def by_hand(level: Any, token: Tensor) -> Tensor:
    gate, up = level.mlp.gate.weight @ token, level.mlp.up.weight @ token
    return level.mlp.down.weight @ (gate / (1 + (-gate).exp()) * up)


def test_a_chain_equals_the_formula() -> None:
    module: Any = awake(config(periods=[1, 2, 4])).layers[0].branches["ffn"]
    x = tokens()
    y = run(module, x)
    for row in range(2):
        for t in range(3):
            expected = by_hand(module.levels[0], x[row, t])
            for level in module.levels[1:]:
                scale = (expected.square().sum() / 16 + 1e-5).sqrt()
                expected = expected + by_hand(level, expected / scale * level.norm.weight)
            assert (y[row, t] - expected).abs().max() < 1e-12


def test_branches_equal_the_formula() -> None:
    module: Any = awake(config(mode="branches", periods=[1, 8])).layers[0].branches["ffn"]
    x = tokens()
    y = run(module, x)
    for row in range(2):
        for t in range(3):
            s = 1 / (1 + math.exp(-float(module.gate.weight[0] @ x[row, t] + module.gate.bias)))
            fast, slow = (by_hand(level, x[row, t]) for level in module.levels)
            assert (y[row, t] - (s * fast + (1 - s) * slow)).abs().max() < 1e-12


def test_equal_branches_are_one_feed_forward_whatever_the_gate() -> None:
    """The start of adding a level to a trained model: the seed's began above the loss of a uniform guess."""
    plain: Any = awake(testing.stack()).layers[0].branches["ffn"]
    module: Any = awake(config(mode="branches", periods=[1, 8], hidden=24)).layers[0].branches["ffn"]
    for level in module.levels:
        level.mlp = copy.deepcopy(plain)
    x = tokens()
    assert torch.equal(run(module, x), run(plain, x))


def test_the_gate_starts_where_it_is_told() -> None:
    module: Any = tinycore.build(config(mode="branches", periods=[1, 8], gate_bias=-2.0)).layers[0].branches["ffn"]
    assert module.gate.bias.tolist() == [-2.0]


def test_what_a_second_branch_costs() -> None:
    """One feed-forward more, and the gate's D + 1 numbers."""
    plain = tinycore.count(testing.stack(ffn={"kind": "swiglu", "hidden": 10}))
    found = tinycore.count(config(mode="branches", periods=[1, 8]))
    assert found.parameters - plain.parameters == 2 * (3 * 16 * 10 + 16 + 1)


def test_a_level_learns_in_its_own_time() -> None:
    torch.manual_seed(0)
    decoder = tinycore.build(config(periods=[1, 2, 6]))
    optimizer = tinycore.optim.adamw(decoder, 1e-2)
    periods = {"levels.0.": 1, "levels.1.": 2, "levels.2.": 6}
    before = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    for step in range(1, 13):
        row = single_rows(decoder.config, 4, 12, step).tokens
        decoder(row, targets=row).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in decoder.named_parameters():
            period = next((c for part, c in periods.items() if part in name), 1)
            assert torch.equal(parameter, before[name]) == (step % period > 0), f"{name} at step {step}"
            before[name] = parameter.detach().clone()


def test_memory_counts_the_sums_of_gradients() -> None:
    """4 bytes for every parameter that is updated late, beside AdamW's two moments."""
    value = config(periods=[1, 2, 6])
    memory = tinycore.count(value).memory(rows=2, length=16)
    decoder = tinycore.build(value)
    late = sum(p.numel() for n, p in decoder.named_parameters() if "levels.1." in n or "levels.2." in n)
    assert memory.optimizer == 8 * tinycore.count(value).parameters + 4 * late
    optimizer = tinycore.optim.adamw(decoder, 1e-2)
    row = single_rows(value, 2, 12).tokens
    for _ in range(7):  # the sixth updates every level, the seventh begins new windows
        decoder(row, targets=row).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tensors = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor) and v.ndim]
    assert sum(v.numel() * v.element_size() for v in tensors) == memory.optimizer


@pytest.mark.parametrize("mode", ["chain", "branches"])
def test_runs_under_autocast(mode: str) -> None:
    decoder = tinycore.build(config(mode=mode, periods=[1, 8]))
    row = single_rows(decoder.config, 2, 12).tokens
    with torch.autocast("cpu", torch.bfloat16):
        out = decoder(row, targets=row)
    out.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in decoder.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"periods": []}, "periods: [] are not one or more positive numbers of steps"),
        ({"periods": [1, 0]}, "periods: [1, 0] are not one or more positive numbers of steps"),
        ({"mode": "branches"}, "periods: branches are two, fast and slow; got 3 periods"),
        ({"hidden": 0}, "hidden: 0 is not positive"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**settings)
    assert str(caught.value) == f"model.layers.0.ffn.{message}"
