"""What a sublayer adds and how calls are joined, held to formulas written out here: what the layers were given and what
they gave is recorded, and the stream between them is computed by hand in float64.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tinycore
from tinycore import ConfigError, testing
from tinycore.generation.fused import can_fuse
from tinycore.optim import decay_groups
from tinycore.testing.gradients import listed_dead
from tinycore.testing.probes import awake

TWICE = {"kind": "shared", "times": 2}


class Recorded:
    """Per call of a layer, what it read and what it gave; and what the final norm read. All (B, T, D)."""

    def __init__(self, config: tinycore.ModelConfig) -> None:
        self.model = awake(config)
        self.read: list[Tensor] = []
        self.given: list[Tensor] = []
        for layer in self.model.layers:
            layer.register_forward_hook(self._call)
        self.model.norm.register_forward_pre_hook(lambda _, inputs: self.read.append(inputs[0]))
        rows = testing.packed_rows(config, 2, 12)
        with torch.no_grad():
            self.model(rows.tokens, doc_ids=rows.doc_ids)
            self.embedding = self.model.embed.weight[rows.tokens]

    def _call(self, layer: nn.Module, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        self.read.append(inputs[0])
        self.given.append(output[0])


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() < 1e-12)


@pytest.mark.parametrize("table", ["triangular", "rectangular"])
@pytest.mark.parametrize(("dilation", "period"), [(1, 1), (2, 1), (1, 2), (3, 2), (2, 5)])
def test_averages_are_those_of_the_paper(dilation: int, period: int, table: str) -> None:
    settings = {"kind": "denseformer", "dilation": dilation, "period": period, "table": table}
    seen = Recorded(testing.stack(residual=settings, depth={"kind": "shared", "times": 3}))
    outputs = [seen.embedding, *seen.given]  # X_0 ... X_6, before any averaging
    table_of_weights = seen.model.depth.stream.weight
    averages = 0
    position = 0
    assert close(seen.read[0], seen.embedding)
    for block in range(1, 7):
        expected = outputs[block]
        if block % period == 0:
            chosen = [j for j in range(block + 1) if (block - j) % dilation == 0]
            if table == "rectangular":
                weights = table_of_weights[averages]
            else:
                weights = table_of_weights[position:]
            position += len(chosen)
            averages += 1
            expected = sum(weights[n] * outputs[j] for n, j in enumerate(chosen))
            assert not close(expected, outputs[block]), "weights that are awake change something"
        assert close(seen.read[block], expected), block
    if table == "triangular":
        assert position == table_of_weights.numel()


def test_a_fresh_table_weighs_the_newest_output_alone() -> None:
    model = tinycore.build(testing.stack(residual={"kind": "denseformer", "table": "rectangular"}, depth=TWICE))
    assert model.depth.stream.weight.tolist() == [[float(j == i + 1) for j in range(5)] for i in range(4)]
    model = tinycore.build(testing.stack(residual={"kind": "denseformer"}))
    assert model.depth.stream.weight.tolist() == [0, 1, 0, 0, 1]


def test_published_tables_and_their_dead_halves() -> None:
    """600 entries for 24 calls and 930 for 30, of which (L + 1) L / 2 - L are above the diagonal."""
    for calls, entries in ((24, 600), (30, 930)):
        layers = [{"repeat": calls, "ffn": {"kind": "swiglu", "hidden": 4}}]
        counts = {}
        for table in ("rectangular", "triangular"):
            config = testing.stack(residual={"kind": "denseformer", "table": table}).to_dict() | {"layers": layers}
            with torch.device("meta"):
                model = tinycore.build(tinycore.ModelConfig.from_dict(config))
            counts[table] = sum(p.numel() for p in model.depth.parameters())
        assert counts == {"rectangular": entries, "triangular": sum(range(2, calls + 2))}
    model = tinycore.build(testing.stack(residual={"kind": "denseformer", "table": "rectangular"}))
    assert {name: mask.tolist() for name, mask in listed_dead(model).items()} == {
        "depth.stream.weight": [[False, False, True], [False, False, False]]
    }


def test_a_list_of_dead_entries_hides_none(monkeypatch: pytest.MonkeyPatch) -> None:
    config = testing.stack(residual={"kind": "denseformer", "table": "rectangular"})
    stream = type(tinycore.build(config).depth.stream)
    masks = {"nothing": torch.zeros(2, 3), "everything": torch.ones(2, 3)}
    for words, name in (("1 of 6 entries", "nothing"), ("listed as dead and receive", "everything")):
        monkeypatch.setattr(stream, "dead_entries", lambda self, name=name: {"weight": masks[name].bool()})
        with pytest.raises(testing.Violation, match=words):
            testing.alive(config)


@pytest.mark.parametrize("branches", [False, True])
def test_scaled_stream_is_lambda_x_plus_mu_embedding(branches: bool) -> None:
    seen = Recorded(testing.stack(residual={"kind": "scaled", "branches": branches}, depth=TWICE))
    weights = seen.model.depth.stream.weight
    assert weights.shape == (4, 2)
    for call, before in enumerate([seen.embedding, *seen.given][:4]):
        assert close(seen.read[call], weights[call, 0] * before + weights[call, 1] * seen.embedding)
    assert torch.equal(seen.read[4], seen.given[3]), "nothing is mixed in after the last call"
    fresh = tinycore.build(seen.model.config).depth.stream.weight
    assert fresh.tolist() == [[1, 0]] * 4


def added(config: tinycore.ModelConfig) -> list[tuple[nn.Module, Tensor, Tensor, Tensor]]:
    """(residual module, stream before, branch's output, stream after) of every sublayer of the first layer."""
    model = awake(config)
    found: list[tuple[nn.Module, Tensor, Tensor, Tensor]] = []
    for norm in model.layers[0].norms.values():
        norm.residual.register_forward_hook(lambda module, inputs, output: found.append((module, *inputs, output)))
    rows = testing.single_rows(config, 2, 6)
    with torch.no_grad():
        model(rows.tokens)
    return found


def test_gate_is_half_open_per_channel_and_sublayer() -> None:
    fresh = tinycore.build(testing.stack(residual={"kind": "gated"}))
    gates = {name: p for name, p in fresh.named_parameters() if name.endswith("residual.gate")}
    assert list(gates) == [f"layers.{i}.norms.{name}.residual.gate" for i in range(2) for name in ("mixer", "ffn")]
    assert all(gate.shape == (16,) and bool((gate.sigmoid() == 0.5).all()) for gate in gates.values())
    calls = added(testing.stack(residual={"kind": "gated"}))
    assert len(calls) == 2
    for module, x, y, after in calls:
        for channel, gate in enumerate(module.gate.tolist()):
            opening = 1 / (1 + math.exp(-gate))
            assert close(after[..., channel], x[..., channel] + opening * y[..., channel])


def test_branches_are_scaled_by_a_number_of_each_sublayer() -> None:
    calls = added(testing.stack(residual={"kind": "scaled", "branches": True}))
    assert len({module.scale.item() for module, *_ in calls}) == 2
    assert all(close(after, x + module.scale.item() * y) for module, x, y, after in calls)


@pytest.mark.parametrize("kind", ["gated", "denseformer", "scaled"])
@pytest.mark.parametrize("table", ["triangular", "rectangular"])
def test_weights_of_residuals_do_not_decay(kind: str, table: str) -> None:
    settings = {"kind": kind, **({"table": table} if kind == "denseformer" else {})}
    model = tinycore.build(testing.stack(residual=settings))
    plain = tinycore.build(testing.stack())
    decayed = [sum(p.numel() for p in decay_groups(each, 0.1)[0]["params"]) for each in (model, plain)]
    assert decayed[0] == decayed[1]


@pytest.mark.parametrize("kind", ["gated", "denseformer", "scaled"])
def test_these_models_are_not_fused(kind: str) -> None:
    assert can_fuse(tinycore.build(testing.stack()).eval())
    assert not can_fuse(tinycore.build(testing.stack(residual={"kind": kind})).eval())


def graphs_of_layers(config: tinycore.ModelConfig) -> tuple[int, Tensor, Tensor]:
    """Layers compiled one by one, as training does: how many graphs there are, and logits with and without compiling."""
    model = awake(config, testing.probes.SINGLE)
    tokens = testing.single_rows(config, 2, 8).tokens
    plain = model(tokens, targets=tokens, return_logits=True).logits
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    for layer in model.layers:
        layer.compile(dynamic=False, backend=backend)
    compiled = model(tokens, targets=tokens, return_logits=True).logits
    torch.compiler.reset()
    return len(graphs), compiled, plain


@pytest.mark.parametrize("kind", ["denseformer", "scaled"])
def test_no_more_graphs_are_compiled_than_for_plain_residuals(kind: str) -> None:
    """A history in what a layer is given would be one graph for each of its lengths, and past 8 of them none."""
    depth = {"kind": "shared", "times": 6}
    number, compiled, plain = graphs_of_layers(testing.stack(depth=depth, residual={"kind": kind}))
    assert 0 < number <= graphs_of_layers(testing.stack(depth=depth))[0]
    assert (compiled - plain).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"residual": {"kind": "denseformer", "dilation": 0}}, "model.residual.dilation: 0 is not positive"),
        ({"residual": {"kind": "denseformer", "period": 0}}, "model.residual.period: 0 is not positive"),
        (
            {"residual": {"kind": "denseformer", "period": 3}},
            "model.residual.period: 3 is more than the model's 2 calls",
        ),
        ({"residual": {"kind": "denseformer", "table": "square"}}, "model.residual.table: unknown value 'square'"),
        ({"residual": {"kind": "dense"}}, "model.residual.kind: unknown residual 'dense'"),
    ],
)
def test_mistakes_are_one_line(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        testing.stack(**parts)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_a_depth_that_runs_no_stream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(testing.stack(depth=TWICE).depth), "runs_stream", False)
    with pytest.raises(ConfigError, match=r"model\.residual\.kind: denseformer joins calls .* depth shared does not"):
        testing.stack(depth=TWICE, residual={"kind": "denseformer"})
    assert testing.stack(depth=TWICE, residual={"kind": "gated"})
