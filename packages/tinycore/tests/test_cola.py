"""CoLA and CoLA_FAN against their formulas written out in float64, one number at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tinycore
from tinycore import testing
from tinycore.linears.cola import CoLA
from tinycore.linears.cola_fan import CoLAFAN, places


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def times(matrix: Tensor, x: list[float]) -> list[float]:
    return [sum(float(a) * b for a, b in zip(row, x, strict=True)) for row in matrix]


def by_hand(module: nn.Module, x: list[float]) -> list[float]:
    """y of one token."""
    if isinstance(module, CoLA):
        inner = times(module.a, x)
        y = times(module.b, [silu(z) for z in inner] if module.activation == "silu" else inner)
        return y if module.bias is None else [a + float(b) for a, b in zip(y, module.bias, strict=True)]
    assert isinstance(module, CoLAFAN)
    plain = times(module.b, [silu(z) for z in times(module.a, x)])
    if module.bias is not None:
        plain = [a + float(b) for a, b in zip(plain, module.bias, strict=True)]
    if not module.pairs:
        return plain
    angles = times(module.periodic_b, [silu(z) for z in times(module.periodic_a, x)])
    # pair j stands before the plain channel that is j and a half of P equal runs of them in
    y: list[float] = []
    pair = 0
    for index, value in enumerate(plain):
        while pair < len(angles) and (2 * pair + 1) * len(plain) // (2 * len(angles)) == index:
            y += [math.cos(angles[pair]), math.sin(angles[pair])]
            pair += 1
        y.append(value)
    for angle in angles[pair:]:
        y += [math.cos(angle), math.sin(angle)]
    return y


SETTINGS: list[dict[str, Any]] = [
    {"kind": "cola", "rank": 3},
    {"kind": "cola", "rank": 5, "bias": True},
    {"kind": "cola", "activation": "none"},
    {"kind": "cola_fan", "rank": 3},
    {"kind": "cola_fan", "rank": 4, "p": 0.3, "bias": True},
    {"kind": "cola_fan", "rank": 2, "p": 0.49},
    {"kind": "cola_fan", "p": 0.0},
]
KINDS = {"cola": CoLA.Config, "cola_fan": CoLAFAN.Config}


def build(settings: dict[str, Any], inputs: int, outputs: int) -> nn.Module:
    options = {key: value for key, value in settings.items() if key != "kind"}
    return KINDS[settings["kind"]](**options).build(inputs, outputs)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 10), (9, 4), (4, 13)])
def test_equals_the_formula(settings: dict[str, Any], inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    module = build(settings, inputs, outputs).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
        x = torch.randn(2, 3, inputs, dtype=torch.float64)
        y = module(x)
        assert y.shape == (2, 3, outputs)
        for found, token in zip(y.flatten(0, 1), x.flatten(0, 1), strict=True):
            assert found.tolist() == pytest.approx(by_hand(module, token.tolist()), abs=1e-12)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradients(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = build({**settings, **({"dropout": 0.0} if settings["kind"] == "cola_fan" else {})}, 5, 7).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    names, values = zip(*module.named_parameters(), strict=True)
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(
        lambda x, *parameters: call(module, dict(zip(names, parameters, strict=True)), (x,)), (x, *values)
    )


@pytest.mark.parametrize("outputs", [2, 7, 64, 96])
@pytest.mark.parametrize("share", [0.1, 0.15, 0.25, 0.49])
def test_periodic_channels_are_spread_over_the_heads(outputs: int, share: float) -> None:
    """Every channel has one place, a cosine its sine behind it, and equal parts of the outputs hold equally many pairs."""
    pairs = int(share * outputs)
    found = places(pairs, outputs, torch.device("cpu"))
    assert sorted(found.tolist()) == list(range(outputs))
    cosines, sines = found[:pairs], found[pairs : 2 * pairs]
    assert torch.equal(sines, cosines + 1)
    if outputs % 4 == 0 and pairs:
        counts = [int(((cosines >= q * outputs // 4) & (cosines < (q + 1) * outputs // 4)).sum()) for q in range(4)]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(256, 256, 64), (256, 720, 64), (720, 256, 96)])
def test_products_start_with_the_papers_deviation(inputs: int, outputs: int, rank: int) -> None:
    torch.manual_seed(0)
    module = CoLA.Config(rank=rank).build(inputs, outputs)
    assert (module.b @ module.a).std().item() == pytest.approx((inputs + outputs) ** -0.5, rel=0.03)
    scaled = CoLA.Config(rank=rank).build(inputs, outputs, 0.25)
    assert scaled.b.std().item() == pytest.approx(module.b.std().item() / 4, rel=0.05)


def test_rank_dropout_is_of_training_only() -> None:
    torch.manual_seed(0)
    module = CoLAFAN.Config(rank=200, dropout=0.09).build(16, 16)
    x = torch.randn(64, 16)
    module.eval()
    assert torch.equal(module(x), module(x))
    module.train()
    assert not torch.equal(module(x), module(x))
    torch.manual_seed(1)
    first = module(x)
    torch.manual_seed(1)
    assert torch.equal(first, module(x))


def test_any_projection_may_be_low_rank() -> None:
    """By name in attention and feed-forward, with the counts that the formula has; a mixture of kinds in one model."""
    rank, dim, hidden = 4, 16, 24
    config = testing.stack(
        mixer={"kind": "attention", "heads": 4, "linear": {"q": {"kind": "cola", "rank": rank}}},
        ffn={"kind": "swiglu", "hidden": hidden, "linear": {"down": {"kind": "cola_fan", "rank": rank, "p": 0.0}}},
    )
    plain = testing.stack(mixer={"kind": "attention", "heads": 4}, ffn={"kind": "swiglu", "hidden": hidden})
    saved = 2 * (dim * dim - rank * 2 * dim) + 2 * (hidden * dim - rank * (hidden + dim))  # two layers
    assert tinycore.count(plain).parameters - tinycore.count(config).parameters == saved


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cola", "rank": 0}, "rank: 0 is not positive"),
        ({"kind": "cola", "activation": "gelu"}, "activation"),
        ({"kind": "cola_fan", "p": 0.5}, "p: 0.5"),
        ({"kind": "cola_fan", "dropout": 1.0}, "dropout: 1.0"),
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(tinycore.ConfigError, match=message) as error:
        tinycore.ModelConfig.from_dict(
            {
                "vocab_size": 8,
                "dim": 16,
                "max_seq_len": 8,
                "linear": settings,
                "layers": [{"ffn": {"kind": "swiglu", "hidden": 8}}],
            }
        )
    assert "\n" not in str(error.value)


HEADS: list[dict[str, Any]] = [
    {"kind": "cola", "rank": 5},
    {"kind": "cola_fan", "rank": 5, "p": 0.2, "dropout": 0.0},
    {"kind": "bit"},
    {"kind": "dense", "bias": True},
]


@pytest.mark.parametrize("linear", HEADS, ids=str)
def test_a_head_of_any_linear_has_the_loss_and_gradients_of_its_logits(linear: dict[str, Any]) -> None:
    """In chunks, as PyTorch's cross-entropy of all logits at once."""
    config = testing.stack(heads={"kind": "lm", "linear": linear, "chunk": 3})
    torch.manual_seed(0)
    model = tinycore.build(config).double()
    tokens, targets = torch.randint(32, (2, 2, 10), generator=torch.Generator().manual_seed(1))
    targets[0, 4:6] = -100
    out = model(tokens, targets=targets, return_logits=True)
    expected = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), targets.flatten())
    found = torch.autograd.grad(out.loss, list(model.parameters()), retain_graph=True)
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    assert out.losses["lm"][1] == 18
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-12)
    right = (out.logits.argmax(-1) == targets).sum()
    assert out.stats["correct"][0] == right
    for ours, other in zip(found, theirs, strict=True):
        assert (ours - other).abs().max() < 1e-12
    with torch.no_grad():
        assert model(tokens, targets=targets).loss.item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_tied_head_has_no_linear_of_its_own() -> None:
    with pytest.raises(tinycore.ConfigError, match=r"heads.lm.linear: .*embed.tied to false"):
        testing.stack(heads={"kind": "lm", "linear": {"kind": "cola"}}, embed={"tied": True})


@pytest.mark.parametrize(("linear", "grows"), [({"kind": "cola", "rank": 3, "bias": True}, True), (HEADS[1], False)])
def test_a_low_rank_head_grows_with_the_vocabulary(linear: dict[str, Any], grows: bool) -> None:
    model = tinycore.build(testing.stack(heads={"kind": "lm", "linear": linear}))
    if not grows:
        with pytest.raises(ValueError, match="cannot grow"):
            tinycore.surgery.grow_vocabulary(model, 40)
        return
    grown = tinycore.surgery.grow_vocabulary(model, 40)
    tokens = torch.randint(32, (1, 9))
    before, after = model(tokens).logits, grown(tokens).logits
    assert after.shape == (1, 9, 40)
    assert torch.allclose(after[..., :32], before, atol=1e-6)
