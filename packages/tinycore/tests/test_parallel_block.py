"""A parallel layer is x + mixer(n) + ffn(n) with one norm n of x: it holds every invariant, costs the products of a
sequential one, and is refused where the norm's placement has no such n.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import begin
from tinycore.generation.fused import can_fuse
from tinycore.norms.pre import PreNorm
from tinycore.testing.probes import awake


@pytest.mark.parametrize("invariant", testing.CHECKS)
def test_holds_every_invariant(invariant: str) -> None:
    testing.CHECKS[invariant](testing.stack(block="parallel"))


@pytest.mark.parametrize("gated", [False, True])
def test_is_the_formula(gated: bool) -> None:
    config = testing.stack(block="parallel", residual={"kind": "gated" if gated else "plain"})
    layer = awake(config).layers[0]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=draw)
    ctx, _ = begin(torch.zeros(2, 7, dtype=torch.long), None, None)
    assert list(layer.norms) == ["parallel"]
    gain = layer.norms["parallel"].norm.weight
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain
    mixed, computed = (layer.branches[name](normed, {}, ctx, None)[0] for name in ("mixer", "ffn"))
    share = torch.sigmoid(layer.norms["parallel"].residual.gate) if gated else 1.0
    expected = x + share * (mixed + computed)  # both are one sublayer: one gate
    assert (layer(x, {}, ctx, None)[0] - expected).abs().max() < 1e-12


def test_costs_a_norm_less() -> None:
    parallel, sequential = (tinycore.count(testing.stack(block=block)) for block in ("parallel", "sequential"))
    assert sequential.parameters - parallel.parameters == 2 * 16  # a gain in each of two layers
    assert parallel.forward_flops(12) == sequential.forward_flops(12)
    assert parallel.state_bytes(12) == sequential.state_bytes(12)
    assert parallel.memory(4, 32).activations < sequential.memory(4, 32).activations


def test_is_not_fused() -> None:
    assert not can_fuse(tinycore.build(testing.stack(block="parallel")).eval())


def layer(**parts: Any) -> dict[str, Any]:
    return {**testing.stack().to_dict(), "layers": [{"block": "parallel", **parts}]}


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ffn = {"kind": "swiglu", "hidden": 8}
    with pytest.raises(ConfigError, match=r"^model\.layers\.0\.block: parallel needs both a mixer and an ffn$"):
        tinycore.ModelConfig.from_dict(layer(ffn=ffn))
    with pytest.raises(
        ConfigError, match=r"^model\.layers\.0\.block: unknown value 'paralel'; did you mean 'parallel'"
    ):
        tinycore.ModelConfig.from_dict(layer(ffn=ffn, block="paralel"))
    monkeypatch.setattr(PreNorm.Config, "parallel", False)
    with pytest.raises(
        ConfigError, match=r"^model\.layers\.0\.block: parallel branches share one norm .* placement pre"
    ):
        testing.stack(block="parallel")
