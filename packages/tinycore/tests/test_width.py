"""Claim: with width transfer a step changes activations as much at every width, without it more at wider ones; each rule has
its own rate, decay acts as before, logits are scaled wherever they are made, and a ratio of one is nothing at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tinycore
from tinycore import optim
from tinycore.generation import fused

Make = Callable[[nn.Module], torch.optim.Optimizer]
BASE = 32
MAKERS: dict[str, Make] = {
    "adamw": lambda model: optim.adamw(model, 2e-3),
    "adam_atan2": lambda model: optim.adam_atan2(model, 2e-3),
    "muon": lambda model: optim.muon(model, 1e-2),
    "m3": lambda model: optim.m3(model, 1e-2),
    "deep_momentum": lambda model: optim.deep_momentum(model, 1e-2),
    "delta_gd": lambda model: optim.delta_gd(model, 5e-3, scale=100.0),
}


def build(width: int, scale: float | None, base: int = BASE, **changed: Any) -> tinycore.Decoder:
    """Two layers whose every inner size grows with the width, heads of 16 channels."""
    torch.manual_seed(0)
    return tinycore.build(
        tinycore.ModelConfig.from_dict(
            {
                "vocab_size": 64,
                "dim": width,
                "max_seq_len": 64,
                "embed": {"kind": "table", "scale": 10.0, "tied": changed.get("tied", True)},
                "layers": [
                    {
                        "repeat": 2,
                        "mixer": {"kind": "attention", "heads": width // 16},
                        "ffn": changed.get("ffn", {"kind": "swiglu", "hidden": 2 * width}),
                    }
                ],
                "heads": {"lm": {"scale": scale}},
            }
        )
    )


def activations(model: tinycore.Decoder, tokens: Tensor) -> dict[str, Tensor]:
    """What every branch gives to the stream, what every layer leaves of it, and the logits."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, given, out: found.__setitem__(name, out[0])

    hooks = []
    for index, layer in enumerate(model.layers):
        hooks.append(layer.register_forward_hook(keep(f"layer {index}")))
        for name in ("mixer", "ffn"):
            branch: Any = layer.branches[name]  # ty: ignore[not-subscriptable]
            hooks.append(branch.register_forward_hook(keep(f"{name} {index}")))
    with torch.no_grad():
        logits = model(tokens).logits
    for hook in hooks:
        hook.remove()
    assert logits is not None
    return {**found, "logits": logits}


def changes(
    make: Make, width: int, base: int, transfer: bool, embeddings: bool, tied: bool, steps: int = 3
) -> dict[str, float]:
    """The root mean square of what so many steps on one batch change in each activation."""
    model = build(width, base / width if transfer and not tied else None, tied=tied)
    model.embed.weight.requires_grad_(embeddings)
    optimizer = make(model)
    if transfer:
        optim.widened(optimizer, model, width / base)
    tokens = torch.randint(0, 64, (4, 33), generator=torch.Generator().manual_seed(1))
    read, wanted = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    before = activations(model, read)
    for _ in range(steps):
        optimizer.zero_grad()
        model(read, targets=wanted).loss.backward()
        optimizer.step()
    after = activations(model, read)
    return {name: (after[name] - before[name]).square().mean().sqrt().item() for name in before}


def slopes(
    make: Make, widths: list[int], transfer: bool, embeddings: bool = True, tied: bool = False
) -> dict[str, float]:
    """The exponent of the width with which each change grows, by least squares over `widths`."""
    each = [changes(make, width, widths[0], transfer, embeddings, tied) for width in widths]
    x = torch.tensor([math.log(width) for width in widths])
    x = x - x.mean()
    return {
        name: float((x * torch.tensor([math.log(found[name]) for found in each])).sum() / x.square().sum())
        for name in each[0]
    }


def test_the_coordinate_check_of_adamw() -> None:
    """Everything trains, over three doublings: what layers change does not depend on the width, nor do logits grow with it.

    (They change a little less at larger widths, since what the initial head reads of a change is divided by m as well.)
    """
    widths = [64, 128, 256, 512]
    flat, steep = (slopes(MAKERS["adamw"], widths, transfer) for transfer in (True, False))
    for name in flat:
        if name == "logits":
            assert -0.35 < flat[name] < 0.1, flat
            assert steep[name] > 0.75, steep
        else:
            assert abs(flat[name]) < 0.1, flat
            assert steep[name] > 0.18, steep


@pytest.mark.parametrize("name", ["adamw", "adam_atan2", "muon", "delta_gd"])
def test_the_coordinate_check_of_a_tied_head(name: str) -> None:
    """No layer changes more at larger widths, what the embedding itself adds less: what tying costs. Logits still grow, by what
    the initial table, as large at every width, reads of a change: with at most the root of the width."""
    widths = [32, 64, 128, 256]
    flat, steep = (slopes(MAKERS[name], widths, transfer, tied=True) for transfer in (True, False))
    for part in flat:
        assert flat[part] < (0.5 if part == "logits" else 0.15), (part, flat)
    assert steep["logits"] > max(0.6, flat["logits"] + 0.25), (steep, flat)


@pytest.mark.parametrize("name", MAKERS)
def test_the_coordinate_check_of_matrices(name: str) -> None:
    """Embeddings are frozen, so that all that moves are matrices, each by the optimizer's own rule."""
    widths = [32, 64, 128, 256]
    flat = slopes(MAKERS[name], widths, transfer=True, embeddings=False)
    steep = slopes(MAKERS[name], widths, transfer=False, embeddings=False)
    for part in flat:
        assert (-0.35 if part == "logits" else -0.2) < flat[part] < 0.18, (part, flat)
        assert steep[part] > 0.3, (part, steep)
        assert steep[part] > flat[part] + 0.2


@pytest.mark.parametrize("tied", [True, False])
def test_rates_and_decay_of_every_role_by_hand(tied: bool) -> None:
    model = build(128, None if tied else 0.25, tied=tied, ffn={"kind": "moe", "hidden": 64, "experts": 4})
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def rates(make: Make) -> dict[str, tuple[float, float]]:
        optimizer = make(model)
        optim.widened(optimizer, model, 4.0)
        found: dict[str, tuple[float, float]] = {}
        for group in optimizer.param_groups:
            assert len(group.get("parts", group["params"])) == len(group["params"])
            found |= {names[id(p)]: (group["lr"], group["lr"] * group["weight_decay"]) for p in group["params"]}
        assert len(found) == len(names)
        return found

    for kind, make in MAKERS.items():
        plain = {
            names[id(p)]: (group["lr"], group["lr"] * group["weight_decay"])
            for group in make(model).param_groups
            for p in group["params"]
        }
        hidden = {"muon": 0.5, "m3": 0.5, "deep_momentum": 0.5, "delta_gd": 0.25 if tied else 1.0}.get(kind, 0.25)
        seen = set()
        for name, (rate, decay) in rates(make).items():
            expected = 1.0
            if "router" in name or (tied and name == "embed.weight"):
                expected = 0.25
            elif name.startswith("layers") and "norm" not in name:
                expected = hidden
            seen.add(expected)
            assert rate == pytest.approx(plain[name][0] * expected), (kind, name)
            assert decay == pytest.approx(plain[name][1]), (kind, name)
        assert seen >= {1.0, 0.25}


@pytest.mark.parametrize("name", MAKERS)
def test_a_ratio_of_one_is_bit_identical(name: str) -> None:
    weights = []
    for transfer in (False, True):
        model = build(BASE, None)
        optimizer = MAKERS[name](model)
        if transfer:
            optim.widened(optimizer, model, 1.0)
        tokens = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(1))
        for _ in range(2):
            optimizer.zero_grad()
            model(tokens[:, :-1].contiguous(), targets=tokens[:, 1:].contiguous()).loss.backward()
            optimizer.step()
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_ratio_that_is_none() -> None:
    model = build(BASE, None)
    with pytest.raises(ValueError, match=r"ratio: 0\.0 is not positive"):
        optim.widened(optim.adamw(model, 1e-3), model, 0.0)


@pytest.mark.parametrize("head", [{}, {"probabilities": "stablemax"}])
@pytest.mark.parametrize("tied", [True, False])
def test_scaled_logits_are_the_plain_ones_times_the_scale(head: dict[str, Any], tied: bool) -> None:
    """In the forward pass, in the loss and its gradients, in decoding step by step and in its fused session."""
    plain = build(BASE, None, tied=tied).config.to_dict()
    plain["heads"]["lm"] |= head
    scaled = {**plain, "heads": {"lm": {**plain["heads"]["lm"], "scale": 0.25}}}
    models = []
    for mapping in (plain, scaled):
        torch.manual_seed(0)
        models.append(tinycore.build(tinycore.ModelConfig.from_dict(mapping)).eval())
    one, other = models
    tokens = torch.randint(0, 64, (2, 20))
    targets = torch.randint(0, 64, (2, 20))
    logits = one(tokens).logits
    torch.testing.assert_close(other(tokens).logits, logits * 0.25)
    torch.testing.assert_close(other.logits(other(tokens).hidden), logits * 0.25)
    found = other(tokens, targets=targets)
    if head.get("probabilities") != "stablemax":
        expected = nn.functional.cross_entropy((logits * 0.25).flatten(0, 1), targets.flatten())
        torch.testing.assert_close(found.loss, expected)
        found.loss.backward()
        own = {name: parameter.grad.clone() for name, parameter in other.named_parameters()}
        other.zero_grad()
        written = nn.functional.cross_entropy(other(tokens).logits.flatten(0, 1), targets.flatten())
        written.backward()
        for name, parameter in other.named_parameters():
            torch.testing.assert_close(own[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    if fused.can_fuse(other):
        session = fused.FusedSession(other, 2)
        torch.testing.assert_close(session.prefill(tokens, None), logits[:, -1] * 0.25, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("linear", [{"kind": "cola", "rank": 8}, {"kind": "dense", "bias": True}])
def test_a_head_that_is_no_matrix_has_no_scale(linear: dict[str, Any]) -> None:
    plain = build(BASE, None, tied=False).config.to_dict()
    plain["heads"]["lm"] |= {"linear": linear, "scale": 0.5}
    with pytest.raises(tinycore.ConfigError, match=r"heads\.lm\.scale: is on the logits of one matrix"):
        tinycore.ModelConfig.from_dict(plain)
