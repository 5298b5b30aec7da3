"""The attention budget: a loop over tokens and calls, what is learned, and what a spent budget leaves alone."""

from __future__ import annotations

import math

import torch

import tinycore
from tinycore import testing
from tinycore.context import Context
from tinycore.testing.probes import awake, packed_rows, single_rows


def config(**parts: object) -> tinycore.ModelConfig:
    return testing.stack(routing={"kind": "budget", **parts}, depth={"kind": "shared", "times": 2})


def test_equals_a_loop_over_tokens_and_calls() -> None:
    model = awake(config(budget=1.7))
    tokens = single_rows(model.config, 1, 9).tokens
    router, context = model.depth.router, Context(torch.arange(9)[None])
    with torch.no_grad():
        out = model(tokens)
        x = model.embed(tokens)[0]
        left = [float(router.start)] * 9
        paid = [0.0] * 9
        for index, layer in enumerate((0, 0, 1, 1)):
            y = model.layers[layer](x[None], {}, context, None)[0][0]
            rest = [min(1.0, max(0.0, b)) for b in left]
            if index < 3:
                for t in range(9):
                    n = x[t] / math.sqrt(float(x[t].square().mean()) + 1e-5)
                    z = float(router.weight[index] @ n) + float(router.bias[index])
                    left[t] -= 1 / (1 + math.exp(-z))
            paid = [p + r for p, r in zip(paid, rest, strict=True)]
            x = torch.stack([x[t] + rest[t] * (y[t] - x[t]) for t in range(9)])
        assert float((model.norm(x) - out.hidden[0]).abs().max()) < 1e-9
        assert float((out.values["steps"][0] - torch.tensor(paid)).abs().max()) < 1e-6
    assert min(paid) < 3, "some budgets run out"


def test_gradients_reach_the_budget_and_the_costs() -> None:
    model = awake(config(budget=1.7, penalty=0.0)).train()
    rows = packed_rows(model.config, 3, 16)
    model(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids).loss.backward()
    for parameter in (model.depth.router.start, model.depth.router.weight, model.depth.router.bias):
        assert bool((parameter.grad != 0).any())


def test_the_penalty_is_the_mean_share_of_calls_and_makes_budgets_smaller() -> None:
    model = awake(config(budget=2.0, penalty=0.5)).train()
    rows = packed_rows(model.config, 3, 16)
    out = model(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids)
    total, number = out.losses["budget"]
    share = float((out.values["steps"][rows.valid] / 4).mean())
    assert abs(float(total.detach() / number) - 0.5 * share) < 1e-6
    (total / number).backward()
    assert float(model.depth.router.start.grad) > 0


def test_a_spent_budget_leaves_tokens_as_they_are_and_layers_keep_what_later_ones_read() -> None:
    model = awake(config(budget=1.0))
    with torch.no_grad():
        model.depth.router.start.fill_(1.0)
        model.depth.router.bias.fill_(50.0)  # the first call takes it all
        tokens = single_rows(model.config, 2, 10).tokens
        calls: list[int] = []
        for layer in model.layers:
            layer.register_forward_hook(lambda module, given, out: calls.append(1))
        out = model(tokens)
        assert len(calls) == 1
        first = model.layers[0](model.embed(tokens), {}, Context(torch.arange(10)[None]), None)[0]
        assert torch.allclose(out.hidden, model.norm(first), atol=1e-12)
        assert {path for path in out.state if path.endswith("kv")} == {
            f"{site}/mixer/kv" for site in ("0.0", "0.1", "1.0", "1.1")
        }
