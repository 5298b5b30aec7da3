"""Claim: the closed form of training memory is what autograd keeps and what torch's allocator hands out, in float32 and
under bf16 autocast, whatever the shape of the model and wherever its peak lies.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.profiler import profile

import tinycore
from tinycore.objectives import next_token

ATTENTION = {"kind": "attention", "heads": 4, "kv_heads": 2}


def config(**change: Any) -> tinycore.ModelConfig:
    layer = {"repeat": 3, "mixer": ATTENTION, "ffn": {"kind": "swiglu", "hidden": 192}}
    plain = {"vocab_size": 512, "dim": 64, "max_seq_len": 256, "layers": [layer]}
    return tinycore.ModelConfig.from_dict({**plain, **change})


def layers(**mixer: Any) -> list[dict[str, Any]]:
    return [{"repeat": 3, "mixer": {**ATTENTION, **mixer}, "ffn": {"kind": "swiglu", "hidden": 192}}]


def alone(**mixer: Any) -> list[dict[str, Any]]:
    return [{"repeat": 3, "mixer": mixer, "ffn": {"kind": "swiglu", "hidden": 192}}]


SHAPES = {
    "plain": config(),
    "shared": config(depth={"kind": "shared", "times": 2}),
    "qk-norm": config(layers=layers(qk_norm=True)),
    "one key head": config(layers=layers(kv_heads=1)),
    "untied, large vocabulary": config(vocab_size=4096, embed={"tied": False}),
    "small chunks: the peak is in a layer": config(vocab_size=300, heads={"lm": {"chunk": 64}}),
    "neural memory": config(layers=alone(kind="titans", heads=2, chunk=16)),
    "neural memory, a matrix": config(layers=alone(kind="titans", heads=4, chunk=32, depth=1, self_modifying=True)),
    "gated recurrence": config(layers=alone(kind="mlgru")),
    "no gains": config(norm={"affine": False}),
}
PRECISIONS = pytest.mark.parametrize("product_bytes", [4, 2], ids=["float32", "bf16"])
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)


def batch(vocab_size: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Tokens and the documents they are of, two a row."""
    tokens = torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    return tokens, (torch.arange(length) * 2 // length).expand(rows, length).contiguous()


def loss_of(model: tinycore.Decoder, rows: int, length: int, product_bytes: int) -> Tensor:
    tokens, documents = batch(model.config.vocab_size, rows, length)
    with torch.autocast("cpu", torch.bfloat16, enabled=product_bytes == 2):
        total, count = next(next_token(model, tokens, tokens, documents))[0]["lm"]
    return total / count


def kept(model: tinycore.Decoder, rows: int, length: int, product_bytes: int) -> int:
    """Bytes of the storages that autograd keeps, each once, parameters left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, Tensor] = {}  # holding the tensors keeps their addresses apart

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, rows, length, product_bytes)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def fullest(model: tinycore.Decoder, rows: int, length: int, product_bytes: int) -> int:
    """The most bytes allocated at one time by a forward and a backward pass, as torch's profiler sees it."""
    with profile(profile_memory=True) as traced:
        loss_of(model, rows, length, product_bytes).backward()
    assert traced.kineto_results is not None
    there = most = 0
    for event in sorted(traced.kineto_results.events(), key=lambda event: event.start_ns()):
        there += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, there)
    return most


@PRECISIONS
@EVERY_SHAPE
@pytest.mark.parametrize(("rows", "length"), [(2, 64), (3, 256)])
def test_activations_are_what_autograd_keeps(name: str, rows: int, length: int, product_bytes: int) -> None:
    model = tinycore.build(SHAPES[name])
    found = tinycore.count(SHAPES[name]).memory(rows, length, product_bytes).activations
    assert found == pytest.approx(kept(model, rows, length, product_bytes), rel=0.02)


@PRECISIONS
@EVERY_SHAPE
@pytest.mark.parametrize("accumulated", [False, True])
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
    # not counted: the room a library asks for in a product, and the masks of packed rows, once for all layers
    assert found.gradients + found.activations + found.temporaries == pytest.approx(measured, rel=0.08)


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
