"""The objective against repetition is the weighted sum of its losses, on a model's own logits, and does what it is for."""

from __future__ import annotations

import pytest
import torch

import tinycore
from tinycore import testing
from tinycore.objectives import AgainstRepetition, next_token, of


def batch(documents: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    tokens = torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1).clone()
    targets[:, -1] = targets[0, 3] = -100
    return tokens, targets, torch.tensor([[0] * 5 + [1] * 7, [0] * 12]) if documents else None


def test_the_losses_are_those_written_out() -> None:
    """In float64, one position after another."""
    torch.manual_seed(0)
    model = tinycore.build(testing.stack()).double()
    tokens, targets, documents = batch()
    assert documents is not None
    smoothing, weight, push = 0.1, 0.5, 0.01
    ((found, step),) = list(
        of(model.config, AgainstRepetition(smoothing, weight, push))(model, tokens, targets, documents)
    )
    log = model(tokens, doc_ids=documents).logits.detach().log_softmax(-1)
    expected = {"lm": 0.0, "unlikelihood": 0.0, "entropy": 0.0}
    for row in range(2):
        for t in range(12):
            target = int(targets[row, t])
            if target == -100:
                continue
            here = log[row, t]
            expected["lm"] += float(-(1 - smoothing) * here[target] - smoothing * here.mean())
            seen = {int(tokens[row, s]) for s in range(t + 1) if documents[row, s] == documents[row, t]} - {target}
            expected["unlikelihood"] -= weight * sum(float(torch.log1p(-here[c].exp())) for c in seen)
            expected["entropy"] += push * float((here.exp() * here).sum())
    assert step
    assert found.keys() == expected.keys()
    for name, (total, count) in found.items():
        assert int(count) == int((targets != -100).sum())
        assert float(total.detach()) == pytest.approx(expected[name], rel=1e-9), name


def test_weights_of_nothing_are_the_plain_objective() -> None:
    config = testing.stack()
    assert of(config, AgainstRepetition()) is of(config) is next_token
    ((plain, _),) = list(next_token(tinycore.build(config), *batch()))
    assert plain.keys() == {"lm"}


def test_unlikelihood_makes_what_stands_before_less_likely() -> None:
    """Tokens are random, so that a model can only learn which to avoid; with the loss it avoids those that it has just read."""
    repeated = {}
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        model = tinycore.build(testing.stack())
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        objective = of(model.config, AgainstRepetition(unlikelihood=weight))
        for step in range(150):
            tokens = torch.randint(32, (8, 12), generator=torch.Generator().manual_seed(1 + step))
            ((found, _),) = list(objective(model, tokens, tokens.roll(-1, 1), None))
            torch.stack([total / count for total, count in found.values()]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tokens, *_ = batch(documents=False)
        chances = model(tokens).logits.detach().softmax(-1)
        means = [chances[:, t].gather(1, tokens[:, : t + 1]).mean() for t in range(12)]
        repeated[weight] = float(torch.stack(means).mean())
    assert repeated[5.0] < 0.85 * repeated[0.0], repeated


def test_depth_that_recurs_is_refused() -> None:
    config = testing.stack(depth={"kind": "recursive", "supervision": 2})
    with pytest.raises(ValueError, match="recurs"):
        of(config, AgainstRepetition(smoothing=0.1))
