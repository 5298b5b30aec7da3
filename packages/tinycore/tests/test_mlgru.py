"""MLGRU against its formula, written here token by token, and the bounds that its layers share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import testing
from tinycore.context import Context, begin
from tinycore.linears.dense import Dense
from tinycore.mixers.mlgru import MLGRU, ForgetBounds
from tinycore.optim.groups import decay_groups
from tinycore.testing.probes import awake, packed_rows, single_rows

DIM = 16


def config(repeat: int = 3, **settings: Any) -> tinycore.ModelConfig:
    layer = {"repeat": repeat, "mixer": {"kind": "mlgru", **settings}, "ffn": {"kind": "swiglu", "hidden": 24}}
    return tinycore.ModelConfig.from_dict({"vocab_size": 32, "dim": DIM, "max_seq_len": 64, "layers": [layer]})


def parts(model: tinycore.Decoder, layer: int) -> tuple[MLGRU, Tensor]:
    """A layer's mixer and its bound, from the table by hand: the shares of the layers up to it, without the first."""
    mixer = model.layers[layer].get_submodule("branches.mixer")
    assert isinstance(mixer, MLGRU)
    gamma = model.get_parameter("shared.mlgru.gamma")
    shares = gamma.exp() / gamma.exp().sum(0)
    return mixer, sum((shares[j] for j in range(1, layer + 1)), torch.zeros(DIM, dtype=gamma.dtype))


def by_hand(mixer: MLGRU, bound: Tensor, x: Tensor) -> Tensor:
    """One document x (T, D) -> (T, D)."""
    hidden, out = torch.zeros(DIM, dtype=x.dtype), []
    for token in x:
        forget = bound + (1 - bound) * torch.sigmoid(mixer.forget.weight @ token)
        hidden = forget * hidden + F.silu(mixer.input.weight @ token) * (1 - forget)
        gate = mixer.gate.weight @ token
        if mixer.norm is None:
            y = torch.sigmoid(gate) * hidden
        else:
            y = gate / (gate.square().mean() + 1e-5).sqrt() * mixer.norm.weight * F.silu(hidden)
        out.append(mixer.output.weight @ y)
    return torch.stack(out)


@pytest.mark.parametrize("gate", ["normed", "sigmoid"])
@pytest.mark.parametrize("layer", [0, 2])
def test_equals_the_formula_by_hand_with_gradients(gate: str, layer: int) -> None:
    model = awake(config(gate=gate))
    mixer, bound = parts(model, layer)
    x = torch.randn(1, 37, DIM, dtype=torch.float64, requires_grad=True)
    carry = {"mlgru": model.shared["mlgru"]()}
    found = mixer(x, carry, Context(torch.arange(37)[None], contiguous=True), None)[0][0]
    expected = by_hand(mixer, bound, x[0])
    assert (found - expected).abs().max() < 1e-12
    weights = torch.randn_like(expected)
    leaves = [x, *mixer.parameters(), *([model.get_parameter("shared.mlgru.gamma")] if layer else [])]
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for ours, other in zip(torch.autograd.grad((found * weights).sum(), leaves), theirs, strict=True):
        assert other.abs().max() > 0
        assert (ours - other).abs().max() < 1e-11


def test_the_scan_in_float32_is_the_loop() -> None:
    model = awake(config(), testing.probes.SINGLE)
    mixer, bound = parts(model, 2)
    x = torch.randn(1, 300, DIM)
    found = mixer(x, {"mlgru": model.shared["mlgru"]()}, Context(torch.arange(300)[None], contiguous=True), None)[0][0]
    exact = by_hand(mixer.double(), bound.double(), x[0].double())
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def test_documents_begin_anew_and_padding_is_stepped_over() -> None:
    model = awake(config())
    mixer, bound = parts(model, 1)
    ids = torch.tensor([[-1, 5, 5, -1, 5, 2, 2, -1, -1, 2, 7]])
    x = torch.randn(1, 11, DIM, dtype=torch.float64)
    found = mixer(x, {"mlgru": model.shared["mlgru"]()}, begin(ids, ids, None)[0], None)[0]
    for document in (5, 2, 7):
        own = ids == document
        assert (found[own] - by_hand(mixer, bound, x[own])).abs().max() < 1e-12


def test_bounds_rise_from_nothing_below_one() -> None:
    table = ForgetBounds(5, 7)
    nn.init.normal_(table.gamma, std=3.0)
    bounds = table()
    assert torch.equal(bounds[0], torch.zeros(7))
    assert bool((bounds.diff(dim=0) > 0).all())
    assert bool((bounds < 1).all())


def test_the_table_is_the_models_own_and_counted_once() -> None:
    model = tinycore.build(config(4))
    names = [name for name, _ in model.named_parameters() if "gamma" in name]
    assert names == ["shared.mlgru.gamma"]
    bounded, free = (tinycore.count(config(4, lower_bound=bound)).parameters for bound in (True, False))
    assert bounded - free == 4 * DIM
    decayed = {id(parameter) for parameter in decay_groups(model, 0.1)[0]["params"]}
    assert id(model.get_parameter("shared.mlgru.gamma")) not in decayed


def test_models_without_the_kind_share_nothing() -> None:
    model = tinycore.build(testing.stack())
    assert not list(model.shared.parameters())
    assert "mlgru" not in tinycore.build(config(1)).shared  # a single layer's bound is 0


def test_bounds_count_all_layers_whatever_their_kinds() -> None:
    plain = config().to_dict()
    mlgru = {"mixer": {"kind": "mlgru"}}
    other = {"mixer": {"kind": "mlgru", "lower_bound": False}}
    plain["layers"] = [other, {"mixer": {"kind": "attention", "heads": 2}}, mlgru, {"ffn": {"kind": "swiglu"}}]
    model = tinycore.build(tinycore.ModelConfig.from_dict(plain))
    assert model.get_parameter("shared.mlgru.gamma").shape == (4, DIM)
    assert [model.layers[i].get_submodule("branches.mixer").layer for i in (0, 2)] == [None, 2]
    rows = packed_rows(model.config, 2, 12)
    assert model(rows.tokens, doc_ids=rows.doc_ids).logits.isfinite().all()


def test_a_layer_that_is_called_twice_keeps_its_bound() -> None:
    once = config(2)
    twice = tinycore.ModelConfig.from_dict({**once.to_dict(), "depth": {"kind": "shared", "times": 2}})
    unrolled = config(4)
    models = [awake(twice), awake(unrolled)]
    with torch.no_grad():
        for index, layer in enumerate(models[1].layers):
            layer.load_state_dict(models[0].layers[index // 2].state_dict())
            layer.get_submodule("branches.mixer").layer = index // 2
        for name in ("embed", "norm"):
            models[1].get_submodule(name).load_state_dict(models[0].get_submodule(name).state_dict())
        models[1].shared = models[0].shared
        tokens = single_rows(once, 2, 9).tokens
        assert (models[0](tokens).logits - models[1](tokens).logits).abs().max() < 1e-12


def test_the_state_is_one_vector_a_layer() -> None:
    counts = tinycore.count(config(lower_bound=False))
    assert {counts.state_bytes(length, 1) for length in (1, 64, 5000)} == {3 * DIM}


class Additions(nn.Module):
    """A linear without a product: every output is the sum of the inputs."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True).expand(*x.shape[:-1], self.outputs)


@pytest.mark.parametrize("gate", ["normed", "sigmoid"])
def test_no_product_is_left_outside_of_linears_and_head(gate: str) -> None:
    value = config(gate=gate)
    model = tinycore.build(value)
    tokens = single_rows(value, 2, 10).tokens
    linears = {name: module for name, module in model.layers.named_modules() if isinstance(module, Dense)}
    assert len(linears) == 3 * (4 + 3)
    with FlopCounterMode(display=False) as before:
        model(tokens, targets=tokens)
    for name, linear in linears.items():
        model.layers.set_submodule(name, Additions(linear.out_features))
    with FlopCounterMode(display=False) as after:
        model(tokens, targets=tokens)
    head = tinycore.count(value).forward_flops(10)["head"] * tokens.numel()
    assert before.get_total_flops() > after.get_total_flops() > 0
    # with targets the head makes its gradients at once: three products in place of one
    assert after.get_total_flops() == 3 * head


def test_mistakes_are_named() -> None:
    with pytest.raises(tinycore.ConfigError, match=r"mixer\.gate: .*'sigmoyd'; did you mean 'sigmoid'"):
        config(gate="sigmoyd")
    with pytest.raises(tinycore.ConfigError, match="unknown projection 'q'; valid: forget, input, gate, output"):
        config(linear={"q": {"kind": "dense"}})
