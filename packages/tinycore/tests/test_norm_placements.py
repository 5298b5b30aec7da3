"""Norm placements equal their papers' formulas, written out around the sublayers; HybridNorm's heads have size one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tinycore
from tinycore import testing
from tinycore.context import begin


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def build(placement: str) -> tinycore.Decoder:
    torch.manual_seed(0)
    config = testing.stack(norm={"placement": placement})
    model = tinycore.build(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def by_formula(model: tinycore.Decoder, tokens: Tensor, placement: str) -> Tensor:
    """What the heads read."""
    gains = {name: p for name, p in model.named_parameters() if name.endswith("norm.weight") and "branches" not in name}
    ctx, _ = begin(tokens, None, None)
    x = model.embed(tokens)

    def run(index: int, name: str, given: Tensor) -> Tensor:
        return model.layers[index].branches[name](given, {}, ctx, None)[0]

    for index in range(len(model.layers)):
        mixer, ffn = (gains.pop(f"layers.{index}.norms.{name}.norm.weight", None) for name in ("mixer", "ffn"))
        assert ffn is not None
        if placement == "post":
            assert mixer is not None
            y = rms(x + run(index, "mixer", x), mixer)
            x = rms(y + run(index, "ffn", y), ffn)
        elif placement == "hybrid_star" and index == 0:
            assert mixer is not None
            y = x + run(index, "mixer", rms(x, mixer))
            x = run(index, "ffn", rms(y, ffn)) + y
        else:
            assert mixer is None, "HybridNorm has no norm before attention"
            n = rms(x + run(index, "mixer", x), ffn)
            x = run(index, "ffn", n) + n
    if placement != "post":
        x = rms(x, gains.pop("norm.weight"))
    assert not gains, "a norm that the formula does not have"
    return x


@pytest.mark.parametrize("placement", ["post", "hybrid", "hybrid_star"])
@torch.no_grad()
def test_the_order_is_the_papers(placement: str) -> None:
    model = build(placement)
    tokens = torch.randint(32, (2, 9), generator=torch.Generator().manual_seed(1))
    found = model(tokens).hidden
    assert found.std() > 0.1
    assert (found - by_formula(model, tokens, placement)).abs().max() < 1e-12


@pytest.mark.parametrize("placement", ["hybrid", "hybrid_star"])
@torch.no_grad()
def test_queries_keys_and_values_have_size_one_at_the_start(placement: str) -> None:
    """In every layer, the first of HybridNorm* too; so no logit passes the root of a head's width."""
    model = tinycore.build(testing.stack(norm={"placement": placement})).double()
    x = 30 * torch.randn(1, 50, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for layer in model.layers:
        mixer = layer.branches["mixer"]
        heads = {name: getattr(mixer, f"{name}_norm")(getattr(mixer, name)(x).unflatten(-1, (-1, 4))) for name in "qkv"}
        for head in heads.values():
            assert (head.square().mean(-1).sqrt() - 1).abs().max() < 1e-3
        logits = heads["q"].flatten(0, 2) @ heads["k"].flatten(0, 2).t() / 4**0.5
        assert 1.5 < logits.abs().max() <= 4**0.5


def test_a_mixer_without_queries_is_refused_in_one_line() -> None:
    with pytest.raises(tinycore.ConfigError, match=r"^model\.layers\.0\.mixer: mamba has no queries, keys and values"):
        testing.stack(mixer={"kind": "mamba"}, norm={"placement": "hybrid"})
