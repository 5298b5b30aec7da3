"""Dropout: rates grow with depth, the mean stays, evaluation draws nothing, and a model without a rate has no operation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tinycore
from tinycore import ConfigError, testing
from tinycore.dropout import Dropout, DropoutConfig
from tinycore.generation.fused import can_fuse


def model(train: bool = True, **dropout: float) -> tinycore.Decoder:
    torch.manual_seed(0)
    return tinycore.build(testing.stack(dropout=dropout)).train(train)


def run(built: tinycore.Decoder) -> Tensor:
    tokens = testing.single_rows(built.config, 4, 16).tokens
    return built(tokens, targets=tokens, return_logits=True).logits


def test_rates_grow_with_the_layers_place() -> None:
    layer = {"mixer": {"kind": "attention", "heads": 4}, "repeat": 4}
    plain = {**testing.stack().to_dict(), "layers": [layer], "dropout": {"rate": 0.1, "growth": 0.5}}
    built = tinycore.build(tinycore.ModelConfig.from_dict(plain))
    assert [1 - float(layer.dropout.kept) for layer in built.layers] == pytest.approx([0.1, 0.15, 0.2, 0.25])


def test_share_mean_and_scale() -> None:
    torch.manual_seed(0)
    y = torch.full((200, 500), 3.0)
    dropped = Dropout(0.3).train()(y)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)  # 7 standard errors
    assert float(dropped.mean()) == pytest.approx(3.0, abs=0.03)
    assert torch.allclose(dropped[dropped != 0], torch.tensor(3 / 0.7))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_share_does_not_depend_on_the_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    y = torch.ones(300, 1000, dtype=dtype)
    dropped = Dropout(0.001).to(dtype).train()(y)
    assert dropped.dtype == dtype
    assert float((dropped == 0).double().mean()) == pytest.approx(0.001, abs=0.0003)


def test_branches_are_what_is_dropped() -> None:
    """A rate so high that hardly anything is kept leaves the stream: the embedding."""
    built = model(rate=1 - 1e-9)
    tokens = testing.single_rows(built.config, 2, 8).tokens
    hidden = built.norm(built.embed(tokens))
    assert torch.equal(built(tokens, targets=tokens).hidden, hidden)


def test_every_forward_pass_draws_anew() -> None:
    """Two micro-batches of the same rows do not get the same mask, nor do two layers or two branches of one."""
    built = model(rate=0.5)
    assert not torch.equal(run(built), run(built))
    masks: list[Tensor] = []
    for layer in built.layers:
        layer.dropout.register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    run(built)
    assert len(masks) == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


def test_the_generator_alone_decides_the_masks() -> None:
    built, results = model(rate=0.5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(run(built))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("train", "dropout"), [(False, {"rate": 0.5}), (True, {}), (True, {"rate": 0.0, "growth": 3.0})]
)
def test_off_is_no_operation_and_no_draw(train: bool, dropout: dict[str, float]) -> None:
    built, plain = model(train, **dropout), model(train)
    before = torch.get_rng_state()
    assert torch.equal(run(built), run(plain))
    assert torch.equal(torch.get_rng_state(), before)
    assert built.state_dict().keys() == plain.state_dict().keys()
    assert any(isinstance(module, Dropout) for module in built.modules()) == bool(dropout.get("rate"))


@pytest.mark.parametrize("growth", [0.0, 0.1])
def test_compiled_layers_of_different_rates_share_their_graphs_and_draw(growth: float) -> None:
    """Two graphs, of the first layer and of those that find the tables of RoPE made, whatever the rates."""
    layer = {"mixer": {"kind": "attention", "heads": 4}, "repeat": 10}
    plain = {**testing.stack().to_dict(), "layers": [layer], "dropout": {"rate": 0.2, "growth": growth}}
    built = tinycore.build(tinycore.ModelConfig.from_dict(plain)).train()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    torch.manual_seed(1)
    expected = run(built)
    torch.compiler.reset()
    for each in built.layers:
        each.compile(dynamic=False, backend=backend)
    torch.manual_seed(1)
    found = run(built)
    torch.compiler.reset()
    assert len(graphs) == 2
    assert (found - expected).abs().max() < 1e-5


def test_decoding_while_training_is_not_fused() -> None:
    built = model(rate=0.1)
    assert not can_fuse(built)
    assert can_fuse(built.eval())


def test_it_moves_with_copies_and_through_a_checkpoint(tmp_path: Any) -> None:
    built = model(rate=0.25, growth=0.5)
    tinycore.save(built, tmp_path / "saved")
    loaded = tinycore.load(tmp_path / "saved").train()
    assert [float(layer.dropout.kept) for layer in loaded.layers] == [0.75, 0.625]
    results = []
    for each in (built, loaded):
        torch.manual_seed(3)
        results.append(run(each))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("dropout", "words"),
    [
        ({"rate": 1.0}, "model.dropout.rate: 1.0 is not at least 0 and below 1"),
        ({"rate": -0.1}, "model.dropout.rate: -0.1 is not"),
        ({"rate": 0.1, "growth": -1.0}, "model.dropout.growth: -1.0 is negative"),
        ({"rate": 0.5, "growth": 1.0}, "model.dropout.growth: layer 1 would drop 1; keep rate"),
        ({"share": 0.5}, "model.dropout: unknown key 'share'"),
    ],
)
def test_mistakes_are_one_line(dropout: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        testing.stack(dropout=dropout)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_rates_are_monotone() -> None:
    rates = [DropoutConfig(rate=0.05, growth=0.04).of(layer) for layer in range(24)]
    assert rates == sorted(set(rates))
