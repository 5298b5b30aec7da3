"""Working memory slots and resonance buffers, each against loops over tokens, and their share of parameters."""

from __future__ import annotations

import math

import pytest
import torch

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.testing.probes import awake, packed_rows


def softmax(scores: list[float]) -> list[float]:
    exps = [math.exp(s - max(scores)) for s in scores]
    return [e / sum(exps) for e in exps]


def normed(x: torch.Tensor) -> torch.Tensor:
    return x / math.sqrt(float(x.square().mean()) + 1e-5)


def documents(ids: torch.Tensor) -> list[list[int]]:
    """Slots of each document of a row, in order."""
    return [[t for t in range(len(ids)) if ids[t] == d] for d in ids.unique().tolist() if d >= 0]


def test_slots_equal_a_loop_over_chunks() -> None:
    model = awake(testing.stack(memory={"kind": "slots", "slots": 3, "chunk": 4, "before": 1}))
    memory, rows = model.depth.memory, packed_rows(model.config, 3, 26)
    with torch.no_grad():
        found = model(rows.tokens, doc_ids=rows.doc_ids).hidden
        for b in range(3):
            for slots in documents(rows.doc_ids[b]):
                context = Context(torch.arange(len(slots))[None])
                x = model.layers[0](model.embed(rows.tokens[b, slots])[None], {}, context, None)[0][0]
                n = [normed(v) for v in x]
                state, after = memory.initial.clone(), []
                for begin in range(0, len(slots), 4):
                    chunk = range(begin, min(begin + 4, len(slots)))
                    for t in chunk:
                        q = memory.q.weight @ n[t]
                        share = softmax([float(q @ slot) / 4 for slot in state])
                        after.append(x[t] + memory.o.weight @ sum(a * m for a, m in zip(share, state, strict=True)))
                    if len(chunk) == 4:
                        w, v = memory.write.weight[:3], memory.write.weight[3:]
                        new = []
                        for s in range(3):
                            share = softmax([float(w[s] @ n[t]) for t in chunk])
                            pooled = sum(a * n[t] for a, t in zip(share, chunk, strict=True))
                            mean = sum(float(v[s] @ n[t]) for t in chunk) / 4 + float(memory.bias[s])
                            gate = 1 / (1 + math.exp(-mean))
                            new.append((1 - gate) * state[s] + gate * pooled)
                        state = torch.stack(new)
                y = model.norm(model.layers[1](torch.stack(after)[None], {}, context, None)[0][0])
                assert float((y - found[b, slots]).abs().max()) < 1e-9


def test_resonance_equals_a_loop_over_tokens_and_calls() -> None:
    settings = {"kind": "resonance", "buffers": 3, "decay": 0.8}
    model = awake(testing.stack(memory=settings, depth={"kind": "shared", "times": 2}))
    memory, rows = model.depth.memory, packed_rows(model.config, 3, 20)
    with torch.no_grad():
        found = model(rows.tokens, doc_ids=rows.doc_ids).hidden
        for b in range(3):
            for slots in documents(rows.doc_ids[b]):
                context = Context(torch.arange(len(slots))[None])
                x = model.embed(rows.tokens[b, slots])
                buffers = [memory.initial.clone() for _ in slots]
                for index, layer in enumerate((0, 0, 1, 1)):
                    if index:
                        heard = []
                        for t in range(len(slots)):
                            mean = sum(x[: t + 1]) / (t + 1)
                            weight = torch.sigmoid(memory.diffuse.weight @ mean + memory.bias)
                            buffers[t] = 0.8 * buffers[t] + 0.2 * weight[:, None] * mean
                            share = softmax([float(x[t] @ slot) / 4 for slot in buffers[t]])
                            read = sum(a * slot for a, slot in zip(share, buffers[t], strict=True))
                            heard.append(x[t] + memory.gate * (memory.inject.weight @ read))
                        x = torch.stack(heard)
                    x = model.layers[layer](x[None], {}, context, None)[0][0]
                assert float((model.norm(x) - found[b, slots]).abs().max()) < 1e-9


@pytest.mark.parametrize("kind", ["slots", "resonance"])
def test_a_memory_is_under_three_percent_of_a_published_shape(kind: str) -> None:
    layer = {
        "repeat": 12,
        "mixer": {"kind": "attention", "heads": 8, "kv_heads": 2},
        "ffn": {"kind": "swiglu", "hidden": 720},
    }
    shape = {"vocab_size": 8192, "dim": 256, "max_seq_len": 512, "layers": [layer], "depth": {"kind": "shared"}}
    plain, more = (
        tinycore.count(tinycore.ModelConfig.from_dict({**shape, **part})) for part in ({}, {"memory": {"kind": kind}})
    )
    assert 0 < more.parameters - plain.parameters < 0.03 * plain.parameters


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "slots", "before": 2}, r"memory.before: 2 is not a call from 0 to 1"),
        ({"kind": "slots", "chunk": 0}, r"memory.chunk: 0 is not positive"),
        ({"kind": "resonance", "decay": 1.0}, r"memory.decay: 1.0 is not at least 0 and below 1"),
    ],
)
def test_impossible_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        testing.stack(memory=settings)
