"""Hourglass depth: groups by position, written out with loops; nothing from later tokens at any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.testing.probes import awake


def hourglass(**depth: Any) -> tinycore.ModelConfig:
    return testing.stack(depth={"kind": "hourglass", "outside": [1], **depth})


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_averages_and_repeats_are_written_out(factor: int) -> None:
    model = awake(hourglass(factors=[factor]))
    tokens = testing.single_rows(model.config, 2, 11).tokens
    first, middle, last = model.layers
    x = first(model.embed(tokens), {}, Context(torch.arange(11)[None]), None)[0]
    ends = list(range(0, 11, factor))
    groups = torch.stack([x[:, max(0, end - factor + 1) : end + 1].mean(1) for end in ends], 1)
    gained = middle(groups, {}, Context(torch.arange(len(ends))[None]), None)[0] - groups
    x = x + torch.stack([gained[:, t // factor] for t in range(11)], 1)
    x = last(x, {}, Context(torch.arange(11)[None]), None)[0]
    assert (model(tokens).hidden - model.norm(x)).abs().max() < 1e-12


@pytest.mark.parametrize("kinds", [("average", "repeat"), ("linear", "linear"), ("attention", "attention")])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_prefix_does_not_see_what_follows_at_any_length(factor: int, kinds: tuple[str, str]) -> None:
    model = awake(hourglass(factors=[factor], shorten=kinds[0], lengthen=kinds[1]))
    tokens = testing.single_rows(model.config, 2, 13).tokens
    with torch.no_grad():
        whole = model(tokens).logits
        for length in range(1, 13):
            assert (model(tokens[:, :length]).logits - whole[:, :length]).abs().max() < 1e-12, length


def test_linear_shortening_begins_as_the_average_of_whole_groups() -> None:
    torch.manual_seed(0)
    average = tinycore.build(hourglass(factors=[2])).double()
    linear = tinycore.build(hourglass(factors=[2], shorten="linear", lengthen="linear")).double()
    linear.load_state_dict(average.state_dict(), strict=False)
    tokens = torch.arange(12)[None]
    for layer in (
        *average.layers,
        *linear.layers,
    ):  # positions apart, so that the first, shorter group touches no other
        layer.branches["mixer"].o.weight.data.zero_()  # ty: ignore[unresolved-attribute]
    found, expected = linear(tokens).logits, average(tokens).logits
    assert (found - expected)[:, 2:].abs().max() < 1e-10
    assert (found - expected)[:, 0].abs().max() > 1e-6


def test_layers_inside_see_shorter_rows() -> None:
    config = hourglass(factors=[2, 2], outside=[1, 0])
    model = awake(config)
    seen: list[int] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    model(torch.arange(16)[None])
    assert seen == [16, 4, 16]
    assert [config.depth.slots(site, 3, 16) for site in config.call_sites()] == seen


def test_it_costs_less_where_rows_are_long() -> None:
    mapping = hourglass(factors=[2]).to_dict()
    mapping["layers"][0]["repeat"] = 8
    short = tinycore.count(tinycore.ModelConfig.from_dict(mapping))
    mapping["depth"] = {"kind": "plain"}
    plain = tinycore.count(tinycore.ModelConfig.from_dict(mapping))
    assert short.parameters == plain.parameters
    ratio = sum(short.forward_flops(1024).values()) / sum(plain.forward_flops(1024).values())
    assert ratio == pytest.approx((2 + 6 / 4) / 8, abs=0.08), (
        "attention's scores, most of it here, cost a quarter inside"
    )


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        ({"factors": [0]}, r"model\.depth\.factors: \[0\] are not one or more numbers from 1 to 256"),
        ({"factors": []}, r"model\.depth\.factors: \[\] are not one or more"),
        ({"factors": [2, 2]}, r"model\.depth\.outside: \[1\] is not a number of layers for each of 2 factors"),
    ],
)
def test_what_cannot_be_is_one_line(depth: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hourglass(**depth)


def test_layers_for_the_middle_must_be_left() -> None:
    mapping = hourglass().to_dict()
    mapping["layers"][0]["repeat"] = 2
    with pytest.raises(ConfigError, match=r"depth\.outside: \[1\] on both sides leave none of 2 layers"):
        tinycore.ModelConfig.from_dict(mapping)


def test_first_values_of_tokens_are_none_of_groups() -> None:
    mixer = {"kind": "attention", "heads": 4, "value_residual": {}}
    with pytest.raises(ConfigError, match=r"layers: value_residual: the first layer's values .* and depth hourglass"):
        testing.stack(depth={"kind": "hourglass", "outside": [1]}, mixer=mixer)
