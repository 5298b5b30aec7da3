"""Depth owns the order of calls: plain runs each layer once, shared runs 0, 0, 1, 1, ...; a shared stack computes what a
plain one with every layer written out as often as it is called computes, and its layers get the sum of their gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tinycore
from tinycore import testing
from tinycore.ffns.swiglu import SwiGLU
from tinycore.mixers.attention import Attention
from tinycore.testing.probes import awake


@pytest.mark.parametrize(
    "depth, order",
    [({"kind": "plain"}, [0, 1]), ({"kind": "shared", "times": 2}, [0, 0, 1, 1]), ({"kind": "shared"}, [0, 0, 1, 1])],
    ids=str,
)
def test_layers_are_called_in_order(depth: dict[str, object], order: list[int]) -> None:
    model = tinycore.build(testing.stack(depth=depth))
    called: list[int] = []
    for index, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda *_, index=index: called.append(index))
    model(torch.zeros(1, 2, dtype=torch.long))
    assert called == order
    assert [site.layer for site in model.config.call_sites()] == order
    assert len({site.path for site in model.config.call_sites()}) == len(order), "each call has a state of its own"


def test_what_branches_report_is_added_up_over_branches_and_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def reporting(correct: Callable[..., Any], total: float) -> Callable[..., Any]:
        def forward(*arguments: Any) -> Any:
            y, carry, state, _ = correct(*arguments)
            return y, carry, state, {name: (torch.tensor(total), torch.tensor(3)) for name in ("reported", "loss/aux")}

        return forward

    monkeypatch.setattr(Attention, "forward", reporting(Attention.forward, 1.0))
    monkeypatch.setattr(SwiGLU, "forward", reporting(SwiGLU.forward, 10.0))
    model = tinycore.build(testing.stack(depth={"kind": "shared", "times": 2}))
    total, count = model(torch.zeros(1, 2, dtype=torch.long)).stats["reported"]
    assert (total.item(), count.item()) == (44.0, 24)
    tokens = torch.zeros(1, 2, dtype=torch.long)
    out = model(tokens, targets=tokens)
    assert out.losses["aux"][0].item() == 44.0
    assert "loss/aux" not in out.stats
    assert out.loss.item() == pytest.approx(44.0 / 24 + (out.losses["lm"][0] / 2).item())


@pytest.mark.parametrize("times", [2, 3])
def test_sharing_is_a_plain_stack_written_out(times: int) -> None:
    shared = awake(testing.stack(depth={"kind": "shared", "times": times}))
    plain = shared.config.to_dict()
    plain["depth"] = {"kind": "plain"}
    plain["layers"][0]["repeat"] *= times
    written_out = tinycore.build(tinycore.ModelConfig.from_dict(plain)).double()
    with torch.no_grad():
        for name, tensor in written_out.state_dict().items():
            parts = name.split(".")
            if parts[0] == "layers":
                parts[1] = str(int(parts[1]) // times)
            tensor.copy_(shared.state_dict()[".".join(parts)])

    rows = testing.packed_rows(shared.config, 3, 16)
    for model in (shared, written_out):
        model(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids).loss.backward()
    with torch.no_grad():
        found, expected = (model(rows.tokens, doc_ids=rows.doc_ids).logits for model in (shared, written_out))
    assert (found - expected).abs().max() < 1e-12
    for layer, own in enumerate(shared.layers):
        for name, parameter in own.named_parameters():
            copies = [written_out.layers[layer * times + call].get_parameter(name).grad for call in range(times)]
            assert (parameter.grad - sum(copies)).abs().max() < 1e-12, name
