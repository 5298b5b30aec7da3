"""Claim: the closed form of training memory is what autograd keeps and what torch's allocator hands out, in float32 and
under bf16 autocast, whatever the shape of the model and wherever its peak lies.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.profiler import profile

import tinycore
from tinycore.objectives import next_token
from tinycore.ops import attention
from tinycore.recompute import Policy

ATTENTION = {"kind": "attention", "heads": 4, "kv_heads": 2}


def config(**change: Any) -> tinycore.ModelConfig:
    layer = {"repeat": 3, "mixer": ATTENTION, "ffn": {"kind": "swiglu", "hidden": 192}}
    plain = {"vocab_size": 512, "dim": 64, "max_seq_len": 256, "layers": [layer]}
    return tinycore.ModelConfig.from_dict({**plain, **change})


def recurrent(**settings: Any) -> tinycore.ModelConfig:
    layer = {"mixer": {"kind": "mamba", **settings}, "ffn": {"kind": "swiglu", "hidden": 192}}
    return config(layers=[{"repeat": 3, **layer}])


def layers(**mixer: Any) -> list[dict[str, Any]]:
    return [{"repeat": 3, "mixer": {**ATTENTION, **mixer}, "ffn": {"kind": "swiglu", "hidden": 192}}]


def feed_forward(**ffn: Any) -> list[dict[str, Any]]:
    return [{"repeat": 3, "mixer": ATTENTION, "ffn": {"hidden": 192, **ffn}}]


def alone(**mixer: Any) -> list[dict[str, Any]]:
    return [{"repeat": 3, "mixer": mixer, "ffn": {"kind": "swiglu", "hidden": 192}}]


SHAPES = {
    "plain": config(),
    "shared": config(depth={"kind": "shared", "times": 2}),
    "qk-norm": config(layers=layers(qk_norm=True)),
    "one key head": config(layers=layers(kv_heads=1)),
    "untied, large vocabulary": config(vocab_size=4096, embed={"tied": False}),
    "small chunks: the peak is in a layer": config(vocab_size=300, heads={"lm": {"chunk": 64}}),
    "periodic input": config(layers=layers(fan=0.125)),
    "first values": config(layers=layers(value_residual={})),
    "first values, added": config(layers=layers(value_residual={"first": 1.0, "own": 1.0, "learned": False})),
    "capped": config(layers=layers(soft_cap=20.0)),
    "qk-norm with a gain": config(layers=layers(qk_norm=True, qk_gain=1.0)),
    "half of RoPE": config(layers=layers(rotary=8)),
    "post-norm": config(norm={"placement": "post"}),
    "HybridNorm": config(norm={"placement": "hybrid"}),
    "HybridNorm*": config(norm={"placement": "hybrid_star", "affine": False}),
    "neural memory": config(layers=alone(kind="titans", heads=2, chunk=16)),
    "neural memory, a matrix": config(layers=alone(kind="titans", heads=4, chunk=32, depth=1, self_modifying=True)),
    "gated recurrence": config(layers=alone(kind="mlgru")),
    "ternary": config(linear={"kind": "bit"}),
    "ternary, median": config(linear={"kind": "bit", "scale": "median", "bias": True}),
    "low rank": config(linear={"kind": "cola", "rank": 24}),
    "low rank, plain": config(linear={"kind": "cola", "activation": "none"}),
    "low rank, periodic": config(
        layers=layers(linear={"q": {"kind": "cola_fan"}, "v": {"kind": "cola_fan", "dropout": 0.0}})
    ),
    "low-rank head": config(
        vocab_size=1024, embed={"tied": False}, heads={"lm": {"linear": {"kind": "cola", "rank": 16}}}
    ),
    "no gains": config(norm={"affine": False}),
    "gated": config(residual={"kind": "gated"}),
    "depth-weighted averages": config(residual={"kind": "denseformer"}, depth={"kind": "shared", "times": 2}),
    "averages: the peak is in a layer": config(
        vocab_size=300,
        heads={"lm": {"chunk": 64}},
        residual={"kind": "denseformer"},
        depth={"kind": "shared", "times": 4},
    ),
    "sparse averages": config(residual={"kind": "denseformer", "dilation": 2, "period": 3}, depth={"kind": "shared"}),
    "scaled": config(residual={"kind": "scaled"}, depth={"kind": "shared", "times": 2}),
    "scaled branches": config(residual={"kind": "scaled", "branches": True}),
    "parallel": config(layers=[{**layers()[0], "block": "parallel"}]),
    "dropout": config(dropout={"rate": 0.1}),
    "relu2": config(layers=feed_forward(kind="relu2")),
    "relu2, gated": config(layers=feed_forward(kind="relu2", gated=True)),
    "relu2, as BitNet": config(layers=feed_forward(kind="relu2", gated=True, sub_norm=True)),
    "cms, chain": config(layers=feed_forward(kind="cms", hidden=96)),
    "cms, branches": config(layers=feed_forward(kind="cms", mode="branches", periods=[1, 8])),
    "moe": config(layers=feed_forward(kind="moe", experts=4)),
    "experts, soft": config(layers=feed_forward(kind="experts", hidden=96)),
    "experts, top1": config(layers=feed_forward(kind="experts", mode="top1", hidden=96)),
    "moe, one active": config(layers=feed_forward(kind="moe", experts=3, active=1)),
    "one register": config(embed={"registers": 1}),
    "mamba": recurrent(),
    "mamba with norms": recurrent(norms=True, expand=1),
}
INNER = {"low-rank head"}  # has graphs of its own, gone before the backward pass, whose tensors hooks would see
PRECISIONS = pytest.mark.parametrize("product_bytes", [4, 2], ids=["float32", "bf16"])
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)


def batch(vocab_size: int, rows: int, length: int, documents: int) -> tuple[Tensor, Tensor]:
    """Tokens and the documents they are of, so many a row."""
    tokens = torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    return tokens, (torch.arange(length) * documents // length).expand(rows, length).contiguous()


def loss_of(model: tinycore.Decoder, rows: int, length: int, product_bytes: int, documents: int = 2) -> Tensor:
    tokens, ids = batch(model.config.vocab_size, rows, length, documents)
    with torch.autocast("cpu", torch.bfloat16, enabled=product_bytes == 2):
        total, count = next(next_token(model, tokens, tokens, ids))[0]["lm"]
    return total / count


def kept(model: tinycore.Decoder, rows: int, length: int, product_bytes: int, documents: int = 2) -> int:
    """Bytes of the storages that autograd keeps, each once, parameters left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, Tensor] = {}  # holding the tensors keeps their addresses apart

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, rows, length, product_bytes, documents)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def fullest(model: tinycore.Decoder, rows: int, length: int, product_bytes: int) -> int:
    """The most bytes allocated at one time by a forward and a backward pass, as torch's profiler sees it."""
    gc.collect()  # what earlier tests left would be counted as freed here
    with profile(profile_memory=True) as traced:
        loss_of(model, rows, length, product_bytes).backward()
    assert traced.kineto_results is not None
    there = most = 0
    for event in sorted(traced.kineto_results.events(), key=lambda event: event.start_ns()):
        there += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, there)
    return most


@PRECISIONS
@pytest.mark.parametrize("name", [name for name in SHAPES if name not in INNER])
@pytest.mark.parametrize(("rows", "length"), [(2, 64), (3, 256)])
def test_activations_are_what_autograd_keeps(name: str, rows: int, length: int, product_bytes: int) -> None:
    model = tinycore.build(SHAPES[name])
    found = tinycore.count(SHAPES[name]).memory(rows, length, product_bytes).activations
    assert found == pytest.approx(kept(model, rows, length, product_bytes), rel=0.02)


@PRECISIONS
@EVERY_SHAPE
@pytest.mark.parametrize("accumulated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_peak_is_what_the_allocator_hands_out(name: str, product_bytes: int, accumulated: bool) -> None:
    rows, length = 16, 128
    model = tinycore.build(SHAPES[name])
    before = 0
    if accumulated:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
            before += parameter.numel() * 4
    found = tinycore.count(SHAPES[name]).memory(rows, length, product_bytes, accumulated)
    assert found.gradients == before
    measured = before + fullest(model, rows, length, product_bytes)
    # masks of packed rows are counted as if a document filled its row, a branch's gradient as if it were never the stream's
    assert found.gradients + found.activations + found.temporaries == pytest.approx(measured, rel=0.04)


@PRECISIONS
def test_registers_are_counted_for_one_document_a_row(product_bytes: int) -> None:
    """As much as they add to a model without any; a second document adds as much again."""
    without, many = (tinycore.build(config(embed={"registers": count})) for count in (0, 12))
    counts = [tinycore.count(model.config).memory(3, 64, product_bytes).activations for model in (without, many)]
    plain = kept(without, 3, 64, product_bytes, documents=1)
    added = kept(many, 3, 64, product_bytes, documents=1) - plain
    assert counts[1] - counts[0] == pytest.approx(added, rel=0.02)
    assert kept(many, 3, 64, product_bytes, documents=2) - plain == pytest.approx(2 * added, rel=0.05)


@PRECISIONS
@pytest.mark.parametrize("policy", ["layers", "low_rank"])
@pytest.mark.parametrize(
    "name", ["plain", "low rank", "low rank, periodic", "shared", "untied, large vocabulary", "mamba"]
)
def test_the_peak_of_recomputing_is_at_most_what_is_counted(name: str, policy: Policy, product_bytes: int) -> None:
    """And not much more: one layer is then a large part of the whole, and what low-rank linears free early shows."""
    rows, length = 16, 128
    model = tinycore.build(SHAPES[name])
    model.recompute(policy)
    found = tinycore.count(SHAPES[name]).memory(rows, length, product_bytes, accumulated=False, recompute=policy)
    measured = fullest(model, rows, length, product_bytes)
    assert 0.96 < (found.gradients + found.activations + found.temporaries) / measured < 1.13


def test_the_peak_moves_with_the_shape() -> None:
    def peak(name: str, rows: int = 16, accumulated: bool = True) -> str:
        return tinycore.count(SHAPES[name]).memory(rows, 128, 4, accumulated).peak

    assert peak("untied, large vocabulary") == "head"
    assert peak("small chunks: the peak is in a layer") == "backward"
    wide = config(dim=256, layers=[{"repeat": 8, "ffn": {"kind": "swiglu", "hidden": 2048}}])
    alone = tinycore.count(wide).memory(1, 4, 4, accumulated=False)
    assert (alone.peak, alone.activations, alone.temporaries) == ("step", 0, 0)
    assert alone.total == 16 * tinycore.count(wide).parameters


def test_memory_adds_up() -> None:
    counts = tinycore.count(config())
    memory = counts.memory(rows=3, length=50)
    assert memory.weights == memory.gradients == memory.optimizer // 2 == 4 * counts.parameters
    assert memory.total == 16 * counts.parameters + memory.activations + memory.temporaries
    assert counts.memory(6, 50).total > memory.total > counts.memory(3, 50, 2).total


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("length", [64, 130, 600])
def test_masks_of_packed_rows_are_at_most_what_is_counted(length: int, window: int | None) -> None:
    """Exactly that where a document fills the row behind its first token; less where there are more of them."""

    def made(starts: Tensor) -> int:
        query = torch.zeros(len(starts), 1, length, 2)
        blocks = [block for _, blocks in attention._plan(query, starts) for block in blocks]
        return sum(hidden.numel() * hidden.element_size() for _, _, hidden in blocks)

    def visible(first: int) -> Tensor:
        starts = torch.where(torch.arange(length) < first, 0, first)
        return torch.maximum(starts, torch.arange(length) - (window or length) + 1)

    counted = attention.mask_bytes(3, length, window)
    assert made(torch.stack([visible(0)] * 3)) == counted
    assert made(torch.stack([visible(length // 2)] * 3)) <= counted
