"""Cognitive experts: a router that is sure of one is that expert alone; labels teach it and change no logit; an expert
can be taken away; losses and statistics are their formulas.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.ffns.experts import silenced
from tinycore.testing.probes import awake, packed_rows, single_rows

MODES = pytest.mark.parametrize("mode", ["soft", "top1"])
NAMES = ["language", "logic", "social", "world"]


def config(**ffn: Any) -> tinycore.ModelConfig:
    return testing.stack(ffn={"kind": "experts", "names": NAMES, "hidden": 12, **ffn})


def branch(**ffn: Any) -> Any:
    return awake(config(**ffn)).layers[0].branches["ffn"]


def tokens(rows: int = 2, length: int = 9) -> Tensor:
    return torch.randn(rows, length, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(module: Any, x: Tensor, documents: Tensor | None = None, routes: Tensor | None = None) -> tuple[Tensor, Any]:
    y, _, _, aux = module(x, {}, Context(torch.arange(x.shape[1])[None], documents, routes=routes), None)
    return y, aux


def by_hand(module: Any, token: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits of the router and what each expert says, for one token (D,)."""
    inner = module.router_in.weight @ token
    logits = module.router_out.weight @ (inner * torch.sigmoid(inner))
    said = []
    for expert in module.experts:
        gate, up = expert.gate.weight @ token, expert.up.weight @ token
        said.append(expert.down.weight @ (gate * torch.sigmoid(gate) * up))
    return logits, said


@MODES
def test_equals_a_loop_over_tokens(mode: str) -> None:
    module = branch(mode=mode)
    x = tokens()
    y, _ = run(module, x)
    for row in range(2):
        for t in range(9):
            logits, said = by_hand(module, x[row, t])
            p = logits.exp() / logits.exp().sum()
            mixed = sum(p[e] * said[e] for e in range(4))
            best = int(p.argmax())
            expected = mixed if mode == "soft" else p[best] * said[best]
            assert (y[row, t] - expected).abs().max() < 1e-12


@MODES
@pytest.mark.parametrize("expert", range(4))
def test_a_router_that_is_sure_is_that_expert_alone(mode: str, expert: int) -> None:
    module = branch(mode=mode)
    x = tokens()
    # whatever a token is, its logits are 0 but for this expert's, which is 4000 times the positive square it reads
    module.router_in.weight.data[:] = x.reshape(-1, 16).mean(0)
    module.router_in = Constant(module.router_in.weight.shape[0])
    module.router_out.weight.data.zero_()
    module.router_out.weight.data[expert] = 1000.0
    y, _ = run(module, x)
    alone = torch.stack([torch.stack([by_hand_of(module.experts[expert], token) for token in row]) for row in x])
    assert (y - alone).abs().max() < 1e-12


class Constant(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.new_ones(*x.shape[:-1], self.width)


def by_hand_of(expert: Any, token: Tensor) -> Tensor:
    gate, up = expert.gate.weight @ token, expert.up.weight @ token
    return expert.down.weight @ (gate * torch.sigmoid(gate) * up)


@MODES
def test_silencing_gives_an_expert_s_share_to_the_others(mode: str) -> None:
    decoder = awake(config(mode=mode))
    module: Any = decoder.layers[0].branches["ffn"]
    x = tokens()
    before, _ = run(module, x)
    with silenced(decoder, "logic"):
        y, aux = run(module, x)
    assert float(aux["experts/usage/logic"][0]) == 0
    for t in range(9):
        logits, said = by_hand(module, x[0, t])
        logits[1] = float("-inf")
        p = logits.exp() / logits.exp().sum()
        best = int(p.argmax())
        expected = sum(p[e] * said[e] for e in (0, 2, 3)) if mode == "soft" else p[best] * said[best]
        assert (y[0, t] - expected).abs().max() < 1e-12
    assert torch.equal(run(module, x)[0], before), "and comes back"


def test_silencing_says_what_it_cannot_do() -> None:
    with (
        pytest.raises(ValueError, match="no expert 'maths' in this model; it has language, logic"),
        silenced(tinycore.build(testing.stack(ffn={"kind": "experts"})), "maths"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="only one"),
        silenced(tinycore.build(testing.stack(ffn={"kind": "experts", "names": ["all"]})), "all"),
    ):
        pass


@MODES
def test_labels_teach_the_router_and_change_no_logit(mode: str) -> None:
    decoder = awake(config(mode=mode, supervision=0.3, balance=0.7))
    rows = packed_rows(decoder.config, 3, 20)
    routes = torch.randint(-1, 4, rows.tokens.shape, generator=torch.Generator().manual_seed(4))
    given = {"targets": rows.targets(), "doc_ids": rows.doc_ids, "return_logits": True}
    plain, told = decoder(rows.tokens, **given), decoder(rows.tokens, routes=routes, **given)
    assert torch.equal(plain.logits, told.logits)
    assert torch.equal(plain.losses["lm"][0], told.losses["lm"][0])
    assert set(plain.losses) == {"lm", "balance"}
    assert set(told.losses) == {"lm", "balance", "routing"}
    known = rows.valid & (routes >= 0)
    assert told.losses["routing"][1] == 2 * known.sum()  # two layers
    assert told.losses["balance"][1] == 2 * (rows.valid & (routes < 0)).sum()


def test_routing_loss_is_the_cross_entropy_of_the_labels() -> None:
    module = branch(supervision=0.3)
    x = tokens()
    documents = torch.tensor([[0, 0, 0, -1, -1, 1, 1, 1, 1], [0] * 9])
    routes = torch.tensor([[0, 1, 2, 3, -1, -1, 3, 3, 0], [1] * 4 + [-1] * 5])
    _, aux = run(module, x, documents, routes)
    losses, agreed = [], 0
    for row in range(2):
        for t in range(9):
            if documents[row, t] >= 0 and routes[row, t] >= 0:
                logits, _ = by_hand(module, x[row, t])
                losses.append(float(logits.exp().sum().log() - logits[routes[row, t]]))
                agreed += int(logits.argmax()) == int(routes[row, t])
    total, count = aux["loss/routing"]
    assert count == len(losses) == 10
    assert float(total) == pytest.approx(0.3 * sum(losses))
    assert aux["experts/agreement"][0] == agreed


@MODES
def test_labels_separate_texts_within_a_few_steps(mode: str) -> None:
    """Tokens below 16 are language, the others logic; the router follows, and without labels it does not know which."""
    torch.manual_seed(0)
    decoder = tinycore.build(testing.stack(ffn={"kind": "experts", "mode": mode, "hidden": 12, "supervision": 1.0}))
    optimizer = tinycore.optim.adamw(decoder, 1e-2)
    agreement = 0.0
    for step in range(60):
        row = single_rows(decoder.config, 8, 16, step).tokens
        out = decoder(row, targets=row, routes=(row >= 16).long())
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        right, known = out.stats["experts/agreement"]
        agreement = float(right / known)
    assert agreement > 0.95


def test_padding_is_not_labelled_and_counts_in_no_statistic() -> None:
    decoder = awake(config())
    rows = packed_rows(decoder.config, 3, 20)
    routes = torch.zeros_like(rows.tokens)
    found = decoder(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids, routes=routes)
    edited = rows.edited(~rows.valid, 32)
    routes[~rows.valid] = 3
    again = decoder(edited.tokens, targets=rows.targets(), doc_ids=rows.doc_ids, routes=routes)
    for name, (total, count) in {**found.losses, **found.stats}.items():
        other = {**again.losses, **again.stats}[name]
        assert count == other[1]
        assert (total - other[0]).abs() < 1e-9, name


def test_soft_experts_hold_what_top1_cannot() -> None:
    soft = config(mode="soft")
    for invariant in ("float32", "flops", "compiled"):
        testing.CHECKS[invariant](soft)


def test_flops_of_top1_are_those_of_real_tokens() -> None:
    module = branch(mode="top1")
    stated = tinycore.count(config(mode="top1")).forward_flops(12)
    x = tokens(2, 12).requires_grad_()
    with FlopCounterMode(display=False) as both:
        y, aux = run(module, x)
        (y.sum() + aux["loss/balance"][0]).backward()
    assert both.get_total_flops() == 3 * 24 * (stated["feed_forward"] + stated["router"]) / 2
    assert 4 * stated["feed_forward"] == tinycore.count(config(mode="soft")).forward_flops(12)["feed_forward"]


def test_balance_is_over_the_tokens_without_a_label() -> None:
    module = branch(balance=1.0, names=NAMES[:2])
    x = tokens(1, 9)
    routes = torch.tensor([[0, 0, 0, -1, -1, -1, -1, 1, 1]])
    _, aux = run(module, x, routes=routes)
    p = torch.stack([F.softmax(by_hand(module, token)[0], -1) for token in x[0, 3:7]])
    shares = torch.bincount(p.argmax(-1), minlength=2) / 4
    total, count = aux["loss/balance"]
    assert count == 4
    assert float(total / count) == pytest.approx(float(2 * (shares * p.mean(0)).sum()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": []}, "names: [] are not one or more different names"),
        ({"names": ["logic", "logic"]}, "names: ['logic', 'logic'] are not one or more different names"),
        ({"names": ["a/b"]}, "names: 'a/b' is not a word of small letters, digits and _"),
        ({"hidden": 0}, "hidden: 0 is not positive"),
        ({"router_hidden": -1}, "router_hidden: -1 is not positive"),
        ({"balance": -0.5}, "balance: -0.5 is negative"),
        ({"supervision": -0.5}, "supervision: -0.5 is negative"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**settings)
    assert str(caught.value) == f"model.layers.0.ffn.{message}"


def test_routes_have_the_tokens_shape() -> None:
    decoder = tinycore.build(config())
    with pytest.raises(ValueError, match=r"routes: expected shape \(1, 5\)"):
        decoder(torch.zeros(1, 5, dtype=torch.long), routes=torch.zeros(1, 4, dtype=torch.long))
