"""Pooled depth: segments written out with loops; the rate that is asked for is the rate that training holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.ops.entropy import entropy
from tinycore.optim.groups import adamw
from tinycore.testing.probes import awake


def pooled(**depth: Any) -> tinycore.ModelConfig:
    return testing.stack(depth={"kind": "pooled", "outside": 1, "hidden": 5, "rate": 2.0, **depth})


def ends(model: tinycore.Decoder, x: torch.Tensor) -> list[bool]:
    """Where the model ends a segment of one row x (T, D), by hand."""
    depth: Any = model.depth
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    if depth.theta is not None:
        p = model.logits(model.norm(x)).softmax(-1)
        return (-(p * p.log()).sum(-1) > 10 * depth.theta).tolist()
    return (((F.silu(depth.inner(normed)) * depth.weight).sum(-1) + depth.bias) > 0).tolist()


@pytest.mark.parametrize("lag", [True, False])
@pytest.mark.parametrize("boundaries", ["learned", "entropy"])
def test_segments_are_written_out(boundaries: str, lag: bool) -> None:
    model = awake(pooled(boundaries=boundaries, lag=lag, longest=3), seed=1)
    depth: Any = model.depth
    with torch.no_grad():  # about half of the tokens end a segment
        lower = model.layers[0](model.embed(torch.arange(32)[:, None]), {}, Context(torch.zeros(1, 1).long()), None)[0]
        if boundaries == "entropy":
            p = model.logits(model.norm(lower)).softmax(-1)
            depth.theta.fill_(float(-(p * p.log()).sum(-1).median()) / 10)
        else:
            normed = lower * torch.rsqrt(lower.square().mean(-1, keepdim=True) + 1e-5)
            depth.bias.fill_(-float((F.silu(depth.inner(normed)) * depth.weight).sum(-1).median()))
    tokens = testing.single_rows(model.config, 3, 14).tokens
    first, middle, last = model.layers
    ctx = Context(torch.arange(14)[None])
    lengths: set[int] = set()
    for row in tokens:
        x = first(model.embed(row[None]), {}, ctx, None)[0][0]
        segments: list[list[int]] = [[]]
        for t, end in enumerate(ends(model, x)):
            segments[-1].append(t)
            if end or len(segments[-1]) == 3:
                segments.append([])
        whole = [segment for segment in segments[:-1] if segment]
        lengths |= set(map(len, whole))
        means = torch.stack([x[segment].mean(0) for segment in whole])
        gained = middle(means[None], {}, Context(torch.arange(len(whole))[None]), None)[0][0] - means
        back = []
        for t in range(14):
            known = [n for n, segment in enumerate(whole) if segment[-1] < t + (not lag)]
            back.append(gained[known[-1]] if known else torch.zeros_like(gained[0]))
        x = last((x + torch.stack(back))[None], {}, ctx, None)[0]
        assert (model(row[None]).hidden - model.norm(x)).abs().max() < 1e-12
    assert len(lengths) > 1, "segments differ in their lengths"


def test_every_token_a_segment_lags_one_token() -> None:
    """As published: with every token a segment the middle sees them all, and what it adds comes a token late."""
    model = awake(pooled(boundaries="all"))
    tokens = testing.single_rows(model.config, 2, 9).tokens
    seen: list[torch.Tensor] = []
    model.layers[1].register_forward_hook(lambda module, given, out: seen.extend((given[0], out[0])))
    first, _, last = model.layers
    ctx = Context(torch.arange(9)[None])
    x = first(model.embed(tokens), {}, ctx, None)[0]
    hidden = model(tokens).hidden
    given, out = seen
    assert torch.equal(given, x)
    late = torch.cat([torch.zeros_like(x[:, :1]), (out - given)[:, :-1]], 1)
    assert (model.norm(last(x + late, {}, ctx, None)[0]) - hidden).abs().max() < 1e-12


@pytest.mark.parametrize("boundaries", ["learned", "entropy"])
def test_training_holds_the_rate(boundaries: str) -> None:
    """Text of words: the share of tokens that end a segment is within 5 % of the one that is asked for."""
    torch.manual_seed(0)
    model = tinycore.build(pooled(boundaries=boundaries, rate=2.5, longest=6, hidden=16))
    optimizer, draw = adamw(model, 5e-3, weight_decay=0.0), torch.Generator().manual_seed(0)
    words = torch.randint(32, (20, 3), generator=draw)
    shares = []
    for step in range(500):
        tokens = words[torch.randint(20, (16, 8), generator=draw)].flatten(1)
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1, (500 - step) / 250)
        out = model(tokens[:, :-1], targets=tokens[:, 1:])
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total, count = out.stats["depth/segments"]
        shares.append(float(total / count))
    assert sum(shares[-50:]) / 50 == pytest.approx(1 / 2.5, rel=0.05)
    model.eval()
    tokens = words[torch.randint(20, (64, 8), generator=draw)].flatten(1)
    total, count = model(tokens).stats["depth/segments"]
    assert float(total / count) == pytest.approx(1 / 2.5, rel=0.1), "in use it is the rate of training"


@pytest.mark.parametrize("settings", [{}, {"boundaries": "entropy"}, {"boundaries": "all"}], ids=str)
def test_parameters_are_the_closed_form(settings: dict[str, Any]) -> None:
    config = pooled(**settings)
    owned = sum(parameter.numel() for parameter in tinycore.build(config).parameters())
    assert owned == tinycore.count(config).parameters


def test_entropy_is_its_definition_in_chunks() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(70_000, 4, dtype=torch.float64)
    hidden = torch.randn(3, 13, 4, dtype=torch.float64)
    logits = hidden @ matrix.t()
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert (entropy(hidden, lambda h: h @ matrix.t(), 70_000) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        ({"rate": 1.0}, r"model\.depth\.rate: 1\.0 is not between 1 and longest 4"),
        ({"longest": 0}, r"model\.depth\.longest: 0 is not between 1 and 256"),
        (
            {"boundaries": "entropy", "early": 0.0},
            r"model\.depth\.early: 0 leaves what the entropy is read from untrained",
        ),
        ({"hidden": 0}, r"model\.depth\.hidden: 0 is not positive"),
    ],
)
def test_what_cannot_be_is_one_line(depth: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pooled(**depth)
