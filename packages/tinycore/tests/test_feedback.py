"""Feedback depth: token after token, written out; in one chunk, ordinary attention; counted on real documents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import ConfigError, testing
from tinycore.testing.probes import awake

HEADS, GROUPS, WIDTH = 4, 2, 4


def feedback(**depth: Any) -> tinycore.ModelConfig:
    return testing.stack(
        depth={"kind": "feedback", "kv_heads": GROUPS, "head_dim": WIDTH, **depth},
        mixer={"kind": "memory_attention", "heads": HEADS},
    )


def normed(x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * gain


def turned(x: Tensor, position: int) -> Tensor:
    """RoPE of heads x (heads, h), by complex numbers."""
    half = x.shape[-1] // 2
    angles = position * 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    pairs = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([pairs.real, pairs.imag], -1)


def written_out(model: tinycore.Decoder, tokens: list[int], chunk: int) -> Tensor:
    """The hidden states (T, D) of one document, one token at a time."""
    depth: Any = model.depth
    keys_of, values_of = depth.projection.chunk(2)
    memories: list[tuple[Tensor, Tensor]] = []
    local: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    hidden = []

    def both(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        return turned((keys_of @ x).view(GROUPS, WIDTH), t), (values_of @ x).view(GROUPS, WIDTH)

    for t, token in enumerate(tokens):
        x = model.embed(torch.tensor([token]))[0]
        stream = [x]
        for number, layer in enumerate(model.layers):
            branches: Any = layer.branches
            norms: Any = layer.norms
            inner = normed(x, norms["mixer"].norm.weight)
            read = [memories[s] if s // chunk < t // chunk else local[number, s] for s in range(t)]
            q = turned((branches["mixer"].q.weight @ inner).view(HEADS, WIDTH), t)
            y = torch.zeros(HEADS, WIDTH, dtype=x.dtype)
            for head in range(HEADS):
                group = head // (HEADS // GROUPS)
                if read:
                    scores = torch.stack([q[head] @ k[group] for k, _ in read]) / WIDTH**0.5
                    y[head] = sum(p * v[group] for p, (_, v) in zip(scores.softmax(0), read, strict=True))
            local[number, t] = both(inner, t)
            x = x + branches["mixer"].o.weight @ y.flatten()
            x = x + branches["ffn"](normed(x, norms["ffn"].norm.weight)[None, None], {}, None, None)[0][0, 0]
            stream.append(x)
        weights = depth.mix.softmax(0)
        memories.append(both(normed(sum(w * each for w, each in zip(weights, stream, strict=True))), t))
        hidden.append(model.norm(x))
    return torch.stack(hidden)


@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_documents_are_written_out(chunk: int) -> None:
    model = awake(feedback(chunk=chunk))
    rows = testing.packed_rows(model.config, 2, 14)
    with torch.no_grad():
        hidden = model(rows.tokens, doc_ids=rows.doc_ids).hidden
        for document in rows.documents():
            expected = written_out(model, rows.tokens[document].tolist(), chunk)
            assert (hidden[document] - expected).abs().max() < 1e-12


def test_what_is_fed_back_reaches_the_next_token_from_the_top() -> None:
    """The first layer of token 1 depends on what the last layer made of token 0; within a chunk it does not."""
    for chunk, reaches in ((1, True), (2, False)):
        model = awake(feedback(chunk=chunk))
        seen: list[Tensor] = []
        model.layers[0].register_forward_hook(lambda module, given, out, seen=seen: seen.append(out[0]))
        down: Any = model.layers[1].branches["ffn"]
        model(torch.tensor([[3, 5]]))
        first = seen[-1][:, -1]
        grad = torch.autograd.grad(first.sum(), down.down.weight, allow_unused=True)[0]
        assert (grad is not None and bool(grad.abs().max() > 0)) == reaches


@pytest.mark.parametrize("chunk", [1, 5, 12])
def test_products_are_counted_on_real_documents(chunk: int) -> None:
    config = feedback(chunk=chunk)
    model, counts = tinycore.build(config), tinycore.count(config)
    tokens = testing.single_rows(config, 2, 12).tokens
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens)
    assert counter.get_total_flops() == round(24 * sum(counts.forward_flops(12).values()))


def test_every_other_mixer_and_depth_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"depth\.kind: feedback computes token after token, from a memory that layer 0's mixer"
    ):
        testing.stack(depth={"kind": "feedback"}, mixer={"kind": "attention", "heads": 4})
    with pytest.raises(
        ConfigError, match=r"memory_attention reads the memory of depth feedback, which this model lacks"
    ):
        testing.stack(depth={"kind": "plain"}, mixer={"kind": "memory_attention", "heads": 4})
    with pytest.raises(ConfigError, match=r"heads: depth\.kv_heads 3 does not divide 4"):
        feedback(kv_heads=3)
    with pytest.raises(ConfigError, match=r"depth\.head_dim: 3 is odd"):
        feedback(head_dim=3)
    with pytest.raises(ConfigError, match=r"depth\.chunk: 0 is not positive"):
        feedback(chunk=0)
