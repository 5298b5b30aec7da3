"""Universal depth: halting weights are a distribution, losses are their definitions, halted tokens are still read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tinycore
from tinycore import ConfigError, testing
from tinycore.optim.groups import adamw
from tinycore.testing.probes import awake


def universal(**depth: Any) -> tinycore.ModelConfig:
    return testing.stack(depth={"kind": "universal", "most": 4, **depth})


def idle(model: tinycore.Decoder) -> tinycore.Decoder:
    """The model whose layers add nothing, and whose steps are told apart by nothing: all its states are the embedding."""
    with torch.no_grad():
        for layer in model.layers:
            layer.branches["mixer"].o.weight.zero_()  # ty: ignore[unresolved-attribute]
            layer.branches["ffn"].down.weight.zero_()  # ty: ignore[unresolved-attribute]
        model.depth.steps.weight.zero_()  # ty: ignore[unresolved-attribute]
    return model


def readout(model: tinycore.Decoder, state: Tensor) -> Tensor:
    """Probability of halting of one state (D,), by hand."""
    depth: Any = model.depth
    normed = state / (state.square().mean() + 1e-5).sqrt()
    return torch.sigmoid((normed * depth.halting.weight).sum() + depth.halting.bias)


@pytest.mark.parametrize("bias", [-6.0, -1.0, 1.0, 6.0])
def test_adaptive_weights_of_a_token_add_up_to_one(bias: float) -> None:
    model = idle(awake(universal(bias=bias)))
    tokens = testing.single_rows(model.config, 3, 9).tokens
    assert (model(tokens).hidden - model.norm(model.embed(tokens))).abs().max() < 1e-12


def test_adaptive_time_is_written_out_for_single_tokens() -> None:
    """A document of one token attends to itself alone, so its steps can be written down one after the other."""
    model = awake(universal(bias=-1.0, ponder_cost=0.5))
    depth: Any = model.depth
    total_cost, steps = 0.0, set()
    tokens = torch.arange(32)[:, None]
    out = model(tokens, targets=tokens)
    for token in range(32):
        state, spent, y, made = model.embed(tokens[token])[None], torch.zeros(()), 0.0, 0
        for step in range(4):
            state = state + depth.steps.weight[step]
            for layer in model.layers:
                state = layer(state, {}, tinycore.context.Context(torch.zeros(1, 1, dtype=torch.long)), None)[0]
            h, made = readout(model, state[0, 0]), step + 1
            if spent + h >= 0.99 or step == 3:
                y = y + (1 - spent) * state
                total_cost += made + float(1 - spent)
                break
            y, spent = y + h * state, spent + h
        steps.add(made)
        assert (model.norm(y)[0, 0] - out.hidden[token, 0]).abs().max() < 1e-12
        assert out.values["steps"][token, 0] == made
    assert len(steps) > 1, "tokens differ in their steps"
    assert float(out.losses["ponder"][0].detach()) == pytest.approx(0.5 * total_cost, rel=1e-12)


@pytest.mark.parametrize(("cost", "most"), [(0.0, 4.0), (1.0, 1.5)])
def test_a_high_cost_makes_one_step(cost: float, most: float) -> None:
    torch.manual_seed(0)
    model = tinycore.build(universal(ponder_cost=cost, bias=-2.0))
    optimizer = adamw(model, 3e-2)
    tokens = torch.randint(32, (8, 12))
    steps = math.nan
    for _ in range(120):
        out = model(tokens, targets=tokens)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps = float(out.stats["depth/steps"][0] / out.stats["depth/steps"][1])
    assert steps <= most
    assert cost or steps > 2


def test_pondering_losses_are_their_definitions() -> None:
    config = universal(halting="ponder", prior=0.3, beta=0.7, bias=-0.5)
    model = awake(config).train()
    rows = testing.packed_rows(config, 3, 16)
    targets, states = rows.targets(), []
    model.layers[1].register_forward_hook(lambda module, given, out: states.append(out[0]))
    out = model(rows.tokens, targets, rows.doc_ids)
    prior = [0.3 * 0.7**n for n in range(3)] + [0.7**3]
    assert sum(prior) == pytest.approx(1)
    loss = divergence = 0.0
    expected = torch.zeros(rows.tokens.shape, dtype=torch.float64)
    for b, t in rows.valid.nonzero().tolist():
        left, p = 1.0, []
        for n in range(4):
            h = 1.0 if n == 3 else float(readout(model, states[n][b, t]))
            p.append(left * h)
            left *= 1 - h
        assert sum(p) == pytest.approx(1, abs=1e-12)
        expected[b, t] = sum((n + 1) * share for n, share in enumerate(p))
        divergence += sum(share * math.log(share / own) for share, own in zip(p, prior, strict=True))
        if targets[b, t] >= 0:
            for share, state in zip(p, states, strict=True):
                logits = model.logits(model.norm(state[b, t]))
                loss += share * float(F.cross_entropy(logits, targets[b, t]))
    assert float(out.losses["lm"][0].detach()) == pytest.approx(loss, rel=1e-9)
    assert int(out.losses["lm"][1]) == int((targets >= 0).sum())
    assert float(out.losses["ponder"][0].detach()) == pytest.approx(0.7 * divergence, rel=1e-9)
    assert (out.values["steps"] - expected)[rows.valid].abs().max() < 1e-12


def test_pondering_stops_at_the_median_in_use() -> None:
    model = awake(universal(halting="ponder", bias=-0.7))
    tokens = torch.arange(32)[:, None]
    out = model(tokens)
    depth: Any = model.depth
    seen = set()
    for token in range(32):
        state, left = model.embed(tokens[token])[None], 1.0
        for step in range(4):
            state = state + depth.steps.weight[step]
            for layer in model.layers:
                state = layer(state, {}, tinycore.context.Context(torch.zeros(1, 1, dtype=torch.long)), None)[0]
            left *= 1 - float(readout(model, state[0, 0]))
            if left <= 0.5 or step == 3:
                seen.add(step + 1)
                assert out.values["steps"][token, 0] == step + 1
                assert (model.norm(state)[0, 0] - out.hidden[token, 0]).abs().max() < 1e-12
                break
    assert len(seen) > 1


def test_one_step_is_one_application_bit_for_bit() -> None:
    torch.manual_seed(0)
    plain = tinycore.build(testing.stack())
    for halting in ("act", "ponder"):
        once = tinycore.build(universal(most=1, halting=halting))
        once.load_state_dict(plain.state_dict(), strict=False)
        tokens = torch.arange(20)[None]
        assert torch.equal(once.eval()(tokens).logits, plain.eval()(tokens).logits)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        ({"most": 0}, r"model\.depth\.most: 0 is not between 1 and 1024"),
        ({"prior": 1.0}, r"model\.depth\.prior: 1\.0 is not between 0 and 1"),
        ({"epsilon": 0.0}, r"model\.depth\.epsilon: 0\.0 is not between 0 and 1"),
        ({"beta": -1.0}, r"model\.depth\.beta: -1\.0 is negative"),
        ({"halting": "never"}, r"model\.depth\.halting: unknown value 'never'"),
    ],
)
def test_what_cannot_be_is_one_line(depth: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        universal(**depth)
