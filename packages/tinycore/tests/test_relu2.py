"""Squared ReLU: both forms equal a loop over positions and channels in float64; settings that cannot be are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.testing.probes import awake


def branch(**ffn: Any) -> Any:
    return awake(testing.stack(ffn={"kind": "relu2", **ffn})).layers[0].branches["ffn"]


def matrix_times(weight: list[list[float]], vector: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(row, vector, strict=True)) for row in weight]


def expected(module: Any, x: list[float]) -> list[float]:
    """One position, in Python floats, from the formula of the paper."""
    up = matrix_times(module.up.weight.tolist(), x)
    if module.gate is None:
        inner = [max(u, 0.0) ** 2 for u in up]
    else:
        gate = matrix_times(module.gate.weight.tolist(), x)
        inner = [max(g, 0.0) ** 2 * u for g, u in zip(gate, up, strict=True)]
    if module.norm is not None:
        scale = math.sqrt(sum(v * v for v in inner) / len(inner) + 1e-5)
        inner = [v / scale * g for v, g in zip(inner, module.norm.weight.tolist(), strict=True)]
    return matrix_times(module.down.weight.tolist(), inner)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("sub_norm", [False, True])
def test_equals_the_formula(gated: bool, sub_norm: bool) -> None:
    module = branch(hidden=10, gated=gated, sub_norm=sub_norm)
    x = torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, _, state, aux = module(x, {}, Context(torch.arange(3)[None]), None)
    found: Tensor = y.detach()
    assert (state, aux) == (None, {})
    for row in range(2):
        for t in range(3):
            assert found[row, t].tolist() == pytest.approx(expected(module, x[row, t].tolist()), abs=1e-12)


def test_widths_that_are_not_given() -> None:
    """4 dim without a gate, 8/3 dim rounded up to 64 with one: the same order of parameters."""
    plain, gated = (testing.stack(dim=96, ffn={"kind": "relu2", "gated": flag}) for flag in (False, True))
    modules = [tinycore.build(config).layers[0].branches["ffn"] for config in (plain, gated)]
    assert [module.up.out_features for module in modules] == [384, 256]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "model.layers.0.ffn.hidden: 0 is not positive"),
        ({"linear": {"gate": {}}}, "model.layers.0.ffn.linear: 'gate' is a projection of the gated form only"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        testing.stack(ffn={"kind": "relu2", **settings})
    assert str(caught.value).startswith(message)
