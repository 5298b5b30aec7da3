"""Closed-form counts: parameters by the textbook formula, FLOPs of every component as FlopCounterMode sees its module,
decoding state as a stream holds it. Memory of training is in test_memory.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import testing
from tinycore.count import Cost


def config(**change: Any) -> tinycore.ModelConfig:
    return tinycore.ModelConfig.from_dict(
        {
            "vocab_size": 512,
            "dim": 64,
            "max_seq_len": 256,
            "layers": [
                {
                    "repeat": 4,
                    "mixer": {"kind": "attention", "heads": 4, "kv_heads": 2},
                    "ffn": {"kind": "swiglu", "hidden": 192},
                }
            ],
            **change,
        }
    )


@pytest.mark.parametrize(
    "vocab, dim, layers, heads, kv_heads, hidden, parameters",
    [
        (1024, 48, 7, 4, 2, 128, 227_280),
        (8192, 72, 7, 4, 2, 192, 990_072),
        (8192, 288, 8, 8, 4, 768, 9_663_264),
    ],
)
def test_parameters_by_the_textbook(
    vocab: int, dim: int, layers: int, heads: int, kv_heads: int, hidden: int, parameters: int
) -> None:
    """V d + L (2 d H h + 2 d G h + 3 d f + 2 d) + d, for three published models."""
    width = dim // heads
    layer = 2 * dim * heads * width + 2 * dim * kv_heads * width + 3 * dim * hidden + 2 * dim
    assert vocab * dim + layers * layer + dim == parameters
    mixer = {"kind": "attention", "heads": heads, "kv_heads": kv_heads}
    value = config(
        vocab_size=vocab,
        dim=dim,
        layers=[{"repeat": layers, "mixer": mixer, "ffn": {"kind": "swiglu", "hidden": hidden}}],
    )
    counts = tinycore.count(value)
    assert (counts.parameters, counts.embedding_parameters) == (parameters, vocab * dim)


def test_an_untied_head_counts_its_own_matrix() -> None:
    tied, untied = (tinycore.count(config(embed={"tied": flag})) for flag in (True, False))
    assert untied.parameters - tied.parameters == 512 * 64
    assert untied.flops_per_token(128) == tied.flops_per_token(128)


def test_sharing_costs_calls_not_parameters() -> None:
    once, twice = tinycore.count(config()), tinycore.count(config(depth={"kind": "shared", "times": 2}))
    assert once.parameters == twice.parameters
    assert twice.state_bytes(100) == 2 * once.state_bytes(100)
    for name, value in once.forward_flops(100).items():
        assert twice.forward_flops(100)[name] == value * (1 if name == "head" else 2)


def test_flops_by_component_are_those_of_its_modules() -> None:
    value, rows, length = (
        config(layers=config().to_dict()["layers"], depth={"kind": "shared", "times": 2}),
        2,
        24,
    )
    with torch.device("meta"):
        model = tinycore.build(value)
        tokens = torch.zeros(rows, length, dtype=torch.long)
        with FlopCounterMode(display=False, depth=8) as counter:
            model(tokens)
    found: dict[str, float] = {}
    for module, operations in counter.get_flop_counts().items():
        flops = sum(operations.values()) / (rows * length)
        match module.split(".")[-1]:
            case "q" | "k" | "v":
                found["attention_projections"] = found.get("attention_projections", 0) + flops
            case "o":
                found["attention_output"] = found.get("attention_output", 0) + flops
            case "mixer" if ".branches." in module:
                found["attention_scores"] = found.get("attention_scores", 0) + flops
            case "ffn" if ".branches." in module:
                found["feed_forward"] = found.get("feed_forward", 0) + flops
            case "lm":
                found["head"] = flops
    # the mixer's count holds those of its projections
    found["attention_scores"] -= found["attention_projections"] + found["attention_output"]
    assert found == tinycore.count(value).forward_flops(length)


def test_backward_is_two_products_for_each_and_training_is_the_sum() -> None:
    counts = tinycore.count(config())
    forward, backward = counts.forward_flops(64), counts.backward_flops(64)
    assert set(forward) == {
        "attention_projections",
        "attention_scores",
        "attention_output",
        "feed_forward",
        "head",
    }
    assert backward == {name: 2 * value for name, value in forward.items()}
    assert counts.flops_per_token(64) == sum(forward.values()) + sum(backward.values())
    assert forward["attention_scores"] == 4 * 64 * 64 * 4  # 4 H h T, four layers
    assert counts.forward_flops(128)["attention_scores"] == 2 * forward["attention_scores"]


@pytest.mark.parametrize("window", [None, 1, 7, 64])
def test_state_bytes_are_what_a_stream_holds(window: int | None) -> None:
    value = testing.stack(mixer={"kind": "attention", "heads": 4, "kv_heads": 2, "window": window})
    model, counts = tinycore.build(value), tinycore.count(value)
    for length in (1, 6, 7, 30):
        state: dict[str, Any] = {}
        with torch.no_grad():
            for token in range(length):
                state = model(torch.full((2, 1), token), state=state).state
        held = sum(
            part.numel() * part.element_size()
            for entry in state.values()
            for part in entry
            if part is not None and part.is_floating_point()
        )
        assert held == 2 * counts.state_bytes(length), length
        assert counts.state_bytes(length, bytes_per_element=2) * 2 == counts.state_bytes(length)


def test_costs_add_by_name_and_calls_multiply_what_a_call_costs() -> None:
    a = Cost(parameters=3, flops={"x": 1.0}, saved=2.0, state=4, held=7, transient=5, products=2)
    b = Cost(parameters=1, flops={"x": 2.0, "y": 5.0}, saved=1.0, state=1, held=1, transient=6, products=1)
    assert a + b == Cost(parameters=4, flops={"x": 3.0, "y": 5.0}, saved=3.0, state=5, held=8, transient=6, products=3)
    assert b.called(3) == Cost(
        parameters=1, flops={"x": 6.0, "y": 15.0}, saved=3.0, state=3, held=3, transient=6, products=1
    )
