"""Mixture of Depths: a loop over tokens, who is picked, and what it saves."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.testing.probes import awake, packed_rows, single_rows


def config(**parts: object) -> tinycore.ModelConfig:
    return testing.stack(routing={"kind": "mod", **parts})


def scores(model: tinycore.Decoder, x: torch.Tensor) -> list[float]:
    """r of each token of one row (T, D), in plain loops."""
    found = []
    for vector in x:
        length = math.sqrt(float(vector.square().mean()) + 1e-5)
        found.append(
            sum(float(w) * float(v) / length for w, v in zip(model.depth.router.weight[0], vector, strict=True))
        )
    return found


def stream_before(model: tinycore.Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """What enters the second layer."""
    x = model.embed(tokens)
    context = Context(torch.arange(tokens.shape[1])[None])
    return model.layers[0](x, {}, context, None)[0]


@pytest.mark.parametrize("gate", ["raw", "sigmoid"])
def test_training_equals_a_layer_on_the_picked_tokens_alone(gate: str) -> None:
    model = awake(config(capacity=0.3, gate=gate)).train()
    tokens = single_rows(model.config, 1, 11).tokens
    with torch.no_grad():
        found = model(tokens).hidden[0]
        x = stream_before(model, tokens)[0]
        r = scores(model, x)
        chosen = sorted(sorted(range(11), key=lambda t: -r[t])[: math.ceil(0.3 * 11)])
        inside = Context(torch.tensor([chosen]))  # at the positions that they have
        made = model.layers[1](x[None, chosen], {}, inside, None)[0][0]
        for place, t in enumerate(chosen):
            factor = r[t] if gate == "raw" else 1 / (1 + math.exp(-r[t]))
            x[t] = x[t] + factor * (made[place] - x[t])
        assert float((model.norm(x) - found).abs().max()) < 1e-9


def test_the_threshold_decides_alike_in_training_and_use() -> None:
    model = awake(config(capacity=0.5, selection="threshold"))
    rows = packed_rows(model.config, 3, 24)
    with torch.no_grad():
        used = model(rows.tokens, doc_ids=rows.doc_ids).logits
        trained = model.train()(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids, return_logits=True).logits
    assert torch.equal(used[rows.valid], trained[rows.valid])
    testing.causal(model.config)


def test_the_seeds_setting_routes_every_call_and_still_streams() -> None:
    made = config(capacity=0.5, every=1, selection="threshold")
    for check in (testing.causal, testing.streams, testing.isolated):
        check(made)


def test_a_threshold_begins_with_about_its_capacity() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shares = []
        for _ in range(30):
            model = tinycore.build(config(capacity=0.125, selection="threshold"))
            tokens = torch.randint(32, (16, 48))
            total, number = model(tokens).stats["routing/share"]
            shares.append(float(total / number))
    assert abs(sum(shares) / len(shares) - 0.125) < 0.04


@pytest.mark.parametrize("selection", ["topk", "threshold"])
def test_what_decides_learns_to_pick_the_capacity(selection: str) -> None:
    """Used, the measured share is the capacity within 2 points, and training's choice is mostly foreseen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tinycore.build(config(capacity=0.25, selection=selection))
        optimizer = tinycore.optim.adamw(model, 3e-3, weight_decay=0.0)
        draw = torch.Generator().manual_seed(1)
        cycles = torch.randint(32, (16, 8), generator=draw)
        for _ in range(400):
            row = cycles[torch.randperm(16, generator=draw)].repeat(1, 5)[:, :33]
            out = model(row[:, :-1], targets=row[:, 1:])
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
        foreseen = float(out.stats["routing/predicted"][0] / out.stats["routing/predicted"][1])
        total, number = model.eval()(row[:, :-1]).stats["routing/share"]
    assert foreseen > 0.85
    assert abs(float(total / number) - 0.25) < 0.02


def test_training_picks_exactly_the_capacity_and_no_padding() -> None:
    model = awake(config(capacity=0.4)).train()
    rows = packed_rows(model.config, 4, 20)
    out = model(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids)
    picked, number = (int(part) for part in out.stats["routing/share"])
    assert number == int(rows.valid.sum())
    assert picked == sum(min(8, int(row.sum())) for row in rows.valid)


def test_a_call_that_nobody_pays_for_is_not_made() -> None:
    model = awake(config(capacity=0.25, selection="threshold"))
    with torch.no_grad():
        model.depth.router.bias.fill_(-1e9)
        plain = awake(testing.stack())
        plain.load_state_dict({k: v for k, v in model.state_dict().items() if "router" not in k})
        plain.layers = plain.layers[:1]
        plain.depth.sites = plain.depth.sites[:1]
        tokens = single_rows(model.config, 2, 12).tokens
        assert torch.equal(model(tokens).logits, plain(tokens).logits)


def test_flops_and_parameters_at_the_capacity() -> None:
    made = config(capacity=0.25, hidden=5)
    counts = tinycore.count(made)
    model = awake(made).train()
    assert sum(p.numel() for p in model.parameters()) == counts.parameters
    tokens = torch.zeros(2, 12, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens)
    # attention's scores are between the 3 picked tokens of each row
    assert counter.get_total_flops() == pytest.approx(24 * sum(counts.forward_flops(12).values()))


def test_decoding_state_holds_picked_tokens_only() -> None:
    model = awake(config(capacity=0.25, selection="threshold"))
    with torch.no_grad():
        model.depth.router.bias.fill_(-1.0)
        out = model(single_rows(model.config, 1, 30).tokens)
    picked = int(out.stats["routing/share"][0])
    assert 0 < picked < 20
    assert out.state["1/mixer/kv"].keys.shape[2] == picked


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"capacity": 0.0}, r"routing.capacity: 0.0 is not above 0"),
        ({"every": 0}, r"routing.every: 0 is not positive"),
        ({"gate": "none"}, r"routing.gate: none gives the choice of topk nothing to learn from"),
        ({"selection": "threshold", "hidden": 4}, r"routing.hidden: a threshold has no predictor"),
    ],
)
def test_impossible_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_conflicting_members_are_refused_in_one_line() -> None:
    attention = {"kind": "attention", "heads": 4, "value_residual": {}}
    with pytest.raises(ConfigError, match=r"value_residual: .* routing mod has layers that see some of them"):
        testing.stack(routing={"kind": "mod"}, mixer=attention)
    with pytest.raises(ConfigError, match=r"routing.kind: budget stands between calls .* depth looped"):
        testing.stack(routing={"kind": "budget"}, depth={"kind": "looped"})
