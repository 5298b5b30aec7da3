"""The value head: verdicts against a loop, and that it learns to tell right from wrong."""

from __future__ import annotations

import math

import pytest
import torch

import tinycore
from tinycore import ConfigError, objectives, testing
from tinycore.testing.probes import awake, packed_rows


def config() -> tinycore.ModelConfig:
    return testing.stack(heads={"kind": "value"})


def test_a_fresh_head_has_no_opinion_and_changes_no_logit() -> None:
    with torch.random.fork_rng(devices=[]):
        model = tinycore.build(config())
    out = model(torch.arange(12)[None])
    assert out.values["value"].shape == (1, 12)
    assert not out.values["value"].any()


def test_verdicts_equal_a_loop() -> None:
    model = awake(config())
    rows = packed_rows(model.config, 3, 12)
    labels = torch.randint(-1, 2, (3, 12), generator=torch.Generator().manual_seed(2))
    losses, step = next(objectives.verdicts(model, rows.tokens, labels, rows.doc_ids))
    hidden, linear = model(rows.tokens, doc_ids=rows.doc_ids).hidden, model.heads["value"].linear
    total, count = 0.0, 0
    for b in range(3):
        for t in range(12):
            if labels[b, t] >= 0:
                p = 1 / (1 + math.exp(-float((linear.weight[0] @ hidden[b, t] + linear.bias).detach())))
                total -= math.log(p if labels[b, t] else 1 - p)
                count += 1
    assert step
    assert int(losses["value"][1]) == count
    assert abs(float(losses["value"][0].detach()) - total) < 1e-9


def test_it_learns_which_sums_are_right() -> None:
    """a + b = c modulo 4: right ones against wrong ones that differ in c alone."""
    draw = torch.Generator().manual_seed(0)

    def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        a, b, wrong = (torch.randint(low, 4, (rows,), generator=draw) for low in (0, 0, 1))
        right = torch.randint(2, (rows,), generator=draw)
        c = (a + b + torch.where(right == 1, 0, wrong)) % 4
        tokens = torch.stack([a, 8 + b, 16 + c], 1)
        return tokens, torch.cat([torch.full((rows, 2), -1), right[:, None]], 1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tinycore.build(config())
        optimizer = tinycore.optim.adamw(model, 1e-2, weight_decay=0.0)
        for _ in range(400):
            losses, _ = next(objectives.verdicts(model, *batch(64)))
            optimizer.zero_grad()
            (losses["value"][0] / losses["value"][1]).backward()
            optimizer.step()
    tokens, labels = batch(500)
    with torch.no_grad():
        opinion = model.eval()(tokens).values["value"][:, -1] > 0
    assert float((opinion == (labels[:, -1] == 1)).double().mean()) > 0.95


def test_a_model_that_predicts_in_place_has_no_verdict_so_far() -> None:
    with pytest.raises(ConfigError, match=r"heads.value.kind: value judges what stands so far"):
        testing.stack(heads={"kind": "value"}, mixer={"kind": "attention", "heads": 4, "causal": False})
