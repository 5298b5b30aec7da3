"""Mixture of experts: equals a loop over tokens, and Jamba's block of transformers with the same weights; counts what it
computes on real tokens; its balance loss is the papers' formula.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import JambaConfig
from transformers.models.jamba.modeling_jamba import JambaSparseMoeBlock

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.ffns.dispatch import dispatch
from tinycore.testing.probes import awake, packed_rows, single_rows


def model(**ffn: Any) -> tinycore.Decoder:
    return awake(testing.stack(ffn={"kind": "moe", "hidden": 12, **ffn}))


def tokens(rows: int = 2, length: int = 9) -> Tensor:
    return torch.randn(rows, length, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(module: Any, x: Tensor, documents: Tensor | None = None) -> tuple[Tensor, dict[str, Any]]:
    y, _, _, aux = module(x, {}, Context(torch.arange(x.shape[1])[None], documents), None)
    return y, aux


@pytest.mark.parametrize(("experts", "active"), [(4, 2), (3, 1), (3, 3), (1, 1)])
def test_equals_a_loop_over_tokens(experts: int, active: int) -> None:
    module: Any = model(experts=experts, active=active).layers[0].branches["ffn"]
    x = tokens()
    y, _ = run(module, x)
    for row in range(2):
        for t in range(9):
            token = x[row, t]
            p = torch.exp(module.router.weight @ token)
            p = p / p.sum()
            best = sorted(range(experts), key=lambda e: -float(p[e]))[:active]
            expected = torch.zeros_like(token)
            for e in best:
                expert = module.experts[e]
                gate, up = expert.gate.weight @ token, expert.up.weight @ token
                expected += p[e] * (expert.down.weight @ (gate * torch.sigmoid(gate) * up))
            assert (y[row, t] - expected).abs().max() < 1e-12


def test_equals_jamba_s_block_of_transformers() -> None:
    module: Any = model(experts=4).layers[0].branches["ffn"]
    settings = {"hidden_size": 16, "intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2}
    theirs: Any = JambaSparseMoeBlock(JambaConfig(**settings)).double()
    theirs.router.weight.data = module.router.weight.data
    theirs.experts.gate_up_proj.data = torch.stack([torch.cat([e.gate.weight, e.up.weight]) for e in module.experts])
    theirs.experts.down_proj.data = torch.stack([e.down.weight for e in module.experts])
    x = tokens().requires_grad_()
    found, expected = run(module, x)[0], theirs(x)
    # theirs takes the softmax in float32 whatever the input
    assert (found - expected).abs().max() < 1e-6
    upstream = torch.randn_like(found)
    (a,), (b,) = (torch.autograd.grad(y, [x], upstream) for y in (found, expected))
    assert (a - b).abs().max() < 1e-5


def test_dispatch_and_its_gradients_equal_computing_every_expert() -> None:
    """Three of five experts a token; the fifth is chosen by nobody and still gets a gradient, of zeros."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(7, 4, dtype=torch.float64, generator=draw, requires_grad=True)
    matrices = torch.randn(5, 4, 4, dtype=torch.float64, generator=draw, requires_grad=True)
    weights = torch.rand(7, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    chosen = torch.stack([torch.randperm(4, generator=draw)[:3] for _ in range(7)])
    found = dispatch(x, chosen, weights, [lambda rows, m=m: torch.tanh(rows @ m) for m in matrices])
    everything = torch.tanh(torch.einsum("nd,edf->nef", x, matrices))
    mixed = torch.zeros(7, 5, dtype=torch.float64).scatter(1, chosen, weights)
    expected = (everything * mixed[..., None]).sum(1)
    assert (found - expected).abs().max() < 1e-12
    upstream = torch.randn(7, 4, dtype=torch.float64, generator=draw)
    leaves = [x, matrices, weights]
    pairs = zip(*(torch.autograd.grad(y, leaves, upstream) for y in (found, expected)), strict=True)
    assert all((a - b).abs().max() < 1e-12 for a, b in pairs)


def test_each_expert_is_called_once_with_its_own_tokens() -> None:
    calls: list[Tensor] = []

    def record(rows: Tensor) -> Tensor:
        calls.append(rows)
        return rows

    chosen = torch.tensor([[2], [0], [2], [2]])
    x = torch.arange(8.0).view(4, 2)
    assert torch.equal(dispatch(x, chosen, torch.ones(4, 1), [record] * 3), x)
    assert [rows.tolist() for rows in calls] == [[[2.0, 3.0]], [], [[0.0, 1.0], [4.0, 5.0], [6.0, 7.0]]]


def test_stated_flops_are_those_of_real_tokens() -> None:
    """What the meta device cannot count: k experts a token, forward and backward, whoever was chosen."""
    decoder = model(experts=5)
    module: Any = decoder.layers[0].branches["ffn"]
    stated = tinycore.count(decoder.config).forward_flops(12)  # of two layers, per token
    x = tokens(2, 12).requires_grad_()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        run(module, x)
    assert forward.get_total_flops() == 24 * (stated["feed_forward"] + stated["router"]) / 2
    with FlopCounterMode(display=False) as both:
        y, aux = run(module, x)
        (y.sum() + aux["loss/balance"][0]).backward()
    assert both.get_total_flops() == 3 * forward.get_total_flops()
    dense = tinycore.count(testing.stack(ffn={"kind": "swiglu", "hidden": 12})).forward_flops(12)["feed_forward"]
    assert stated["feed_forward"] == 2 * dense
    assert stated["router"] == 2 * 2 * 16 * 5


def test_balance_loss_and_statistics_are_the_formula() -> None:
    module: Any = model(experts=3, active=2, balance=0.5).layers[0].branches["ffn"]
    x = tokens()
    documents = torch.tensor([[0, 0, 0, -1, -1, 1, 1, 1, 1], [0] * 8 + [-1]])
    _, aux = run(module, x, documents)
    valid = x[documents >= 0]
    p = F.softmax(valid @ module.router.weight.T, -1)
    usage = [0.0] * 3
    for row in p:
        for e in sorted(range(3), key=lambda e: -float(row[e]))[:2]:
            usage[e] += 1 / (2 * len(p))
    assert sum(usage) == pytest.approx(1)
    total, count = aux["loss/balance"]
    assert count == len(p) == 15
    assert float(total / count) == pytest.approx(
        0.5 * 3 * sum(u * m for u, m in zip(usage, p.mean(0).tolist(), strict=True))
    )
    found = [float(aux[f"experts/usage/{e}"][0] / count) for e in range(3)]
    assert found == pytest.approx(usage)
    assert float(aux["experts/usage/largest"][0] / count) == pytest.approx(max(usage))
    entropy = -(p * p.log()).sum(-1).mean()
    assert float(aux["experts/entropy"][0] / count) == pytest.approx(float(entropy))


def test_even_routing_has_a_balance_loss_of_one_and_collapse_of_the_number_of_experts() -> None:
    decoder = model(experts=4, active=1, balance=1.0)
    module: Any = decoder.layers[0].branches["ffn"]
    x = torch.eye(16, dtype=torch.float64)[:4].expand(3, 4, 16)
    for scale, expected in ((torch.eye(4), 1.0), (torch.ones(4, 4) * torch.eye(4)[0, :, None], 4.0)):
        module.router.weight.data.zero_()
        module.router.weight.data[:, :4] = 50 * scale
        total, count = run(module, x)[1]["loss/balance"]
        assert float(total / count) == pytest.approx(expected)


def test_losses_keep_the_next_token_loss_apart() -> None:
    decoder = model(experts=4)
    rows = packed_rows(decoder.config, 3, 20)
    out = decoder(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids, return_logits=True)
    assert set(out.losses) == {"lm", "balance"}
    expected = F.cross_entropy(out.logits.flatten(0, 1), rows.targets().flatten(), ignore_index=-100, reduction="sum")
    assert (out.losses["lm"][0] - expected).abs() < 1e-9
    assert out.losses["balance"][1] == 2 * rows.valid.sum()  # both layers
    mean = [total / count for total, count in out.losses.values()]
    assert (out.loss - sum(mean)).abs() < 1e-12
    without = model(experts=4, balance=0.0)(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids)
    assert set(without.losses) == {"lm"}


def test_training_makes_a_router_that_has_collapsed_even_again() -> None:
    torch.manual_seed(0)
    decoder = tinycore.build(testing.stack(ffn={"kind": "moe", "experts": 4, "active": 1, "hidden": 8, "balance": 1.0}))
    for layer in decoder.layers:
        layer.branches["ffn"].router.weight.data[0] += 0.3  # ty: ignore[unresolved-attribute]
    optimizer = tinycore.optim.adamw(decoder, 3e-3)
    largest = []
    for step in range(80):
        row = single_rows(decoder.config, 8, 16, step).tokens
        out = decoder(row, targets=row)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        total, count = out.stats["experts/usage/largest"]
        largest.append(float(total / count))
    assert largest[0] > 0.45
    assert largest[-1] < 0.4


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_runs_in_the_precision_of_training(precision: torch.dtype) -> None:
    decoder = tinycore.build(testing.stack(ffn={"kind": "moe", "experts": 4, "hidden": 12}))
    row = single_rows(decoder.config, 2, 12).tokens
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        out = decoder(row, targets=row)
    out.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in decoder.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": 0}, "experts: 0 is not positive"),
        ({"experts": 2, "active": 3}, "active: 3 is not between 1 and the number of experts 2"),
        ({"experts": 2, "hidden": 0}, "hidden: 0 is not positive"),
        ({"experts": 2, "balance": -1}, "balance: -1.0 is negative"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        testing.stack(ffn={"kind": "moe", **settings})
    assert str(caught.value) == f"model.layers.0.ffn.{message}"
