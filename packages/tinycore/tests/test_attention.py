"""Attention equals its formula written as float64 loops, for grouped queries, windows, packed rows and padding, with every
option; RoPE is a rotation that depends on differences of positions only; the state holds what later tokens can see and no
more.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch

import tinycore
from tinycore import testing
from tinycore.config import load
from tinycore.context import PADDING, Context, begin
from tinycore.families import MixerConfig
from tinycore.mixers.attention import Attention
from tinycore.mixers.key_values import KeyValueState
from tinycore.mixers.rotary import rotary_tables, rotate

DIM = 12


def build(placement: str = "pre", **settings: object) -> Attention:
    config = load(MixerConfig, {"kind": "attention", **settings}, "mixer")
    torch.manual_seed(0)
    module = config.build(tinycore.testing.stack(norm={"placement": placement}).scope(layer=1)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def by_loops(module: Attention, x: np.ndarray, ids: list[int], first: np.ndarray | None = None) -> np.ndarray:
    """One row x (T, D) through the formula, one query, head and key at a time; `first` (T, G h), the first layer's values."""
    length, width = len(x), module.width
    weights = {name: getattr(module, name).weight.detach().numpy() for name in "qkvo"}
    positions, seen = [], {}
    for document in ids:
        positions.append(seen.get(document, 0))
        seen[document] = seen.get(document, 0) + 1

    if module.fan is not None:
        fan = {name: parameter.detach().numpy() for name, parameter in module.fan.named_parameters()}
        angles = [fan["p.weight"] @ token for token in x]
        rest = [fan["g.weight"] @ token + fan["bias"] for token in x]
        x = np.array([[*np.cos(a), *np.sin(a), *r] for a, r in zip(angles, rest, strict=True)])

    def head(name: str, t: int, index: int) -> np.ndarray:
        vector = (weights[name] @ x[t])[index * width : (index + 1) * width]
        norm = getattr(module, f"{name}_norm", None)
        if norm is not None:
            vector = vector / np.sqrt(np.mean(vector**2) + norm.eps) * norm.weight.detach().numpy()
        if name == "v" and first is not None:
            mixed = module.value_residual
            vector = float(mixed.first) * first[t, index * width : (index + 1) * width] + float(mixed.own) * vector
        if name == "q" and module.q_gain is not None:
            vector = vector * module.q_gain[index].item()
        return vector

    def turned(vector: np.ndarray, position: int) -> np.ndarray:
        half = module.rotary // 2
        pairs = [
            complex(vector[i], vector[i + half]) * cmath.exp(1j * position * module.theta ** (-i / half))
            for i in range(half)
        ]
        return np.array([pair.real for pair in pairs] + [pair.imag for pair in pairs] + vector[2 * half :].tolist())

    out = np.zeros((length, module.heads * width))
    for t in range(length):
        for h in range(module.heads):
            group = h // (module.heads // module.groups)
            query = turned(head("q", t, h), positions[t])
            visible = [
                s
                for s in range(t + 1)
                if ids[s] == ids[t] and (module.window is None or positions[t] - positions[s] < module.window)
            ]
            scores = [query @ turned(head("k", s, group), positions[s]) / math.sqrt(width) for s in visible]
            if module.soft_cap is not None:
                scores = [module.soft_cap * math.tanh(score / module.soft_cap) for score in scores]
            shares = np.exp(np.array(scores) - max(scores))
            shares /= shares.sum()
            out[t, h * width : (h + 1) * width] = sum(
                share * head("v", s, group) for share, s in zip(shares, visible, strict=True)
            )
    return out @ weights["o"].T


@pytest.mark.parametrize(
    "settings",
    [
        {"heads": 4},
        {"heads": 4, "kv_heads": 2},
        {"heads": 4, "kv_heads": 1, "window": 3},
        {"heads": 2, "head_dim": 6, "qk_norm": True, "theta": 50.0},
        {"heads": 2, "window": 1},
        {"heads": 4, "kv_heads": 2, "qk_norm": True, "window": 4},
        {"heads": 4, "kv_heads": 2, "placement": "hybrid", "window": 4},
        {"heads": 2, "rotary": 4, "soft_cap": 1.5},
        {"heads": 4, "kv_heads": 2, "rotary": 0, "qk_norm": True, "qk_gain": 3.0},
        {"heads": 4, "kv_heads": 2, "fan": 0.2},
        {"heads": 4, "kv_heads": 2, "value_residual": {}},
        {"heads": 2, "value_residual": {"first": 1.0, "own": 1.0, "learned": False}, "placement": "hybrid"},
    ],
    ids=str,
)
@pytest.mark.parametrize("packed", [False, True])
def test_equals_the_formula(settings: dict[str, object], packed: bool) -> None:
    module = build(**settings)
    rows = (testing.packed_rows if packed else testing.single_rows)(testing.stack(), 2, 11, 4)
    x = torch.randn(2, 11, module.q.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ctx, _ = begin(rows.tokens, rows.doc_ids, None)
    mixed = "value_residual" in settings
    first = torch.randn(2, module.groups, 11, module.width, dtype=torch.float64) if mixed else None
    with torch.no_grad():
        y = module(x, {} if first is None else {"first_values": first}, ctx, None)[0].numpy()
    for row in range(2):
        valid = rows.valid[row].numpy()
        ids = [0] * 11 if rows.doc_ids is None else rows.doc_ids[row].tolist()
        values = None if first is None else first[row].transpose(0, 1).flatten(1).numpy()[valid]
        expected = by_loops(module, x[row].numpy()[valid], [i for i in ids if i != PADDING], values)
        assert np.abs(y[row][valid] - expected).max() < 1e-12


def logits(model: tinycore.Decoder, tokens: torch.Tensor) -> torch.Tensor:
    return model.logits(model(tokens).hidden)


def test_the_first_values_are_those_of_the_first_call_and_reach_every_later_one() -> None:
    """With factors (1, 0) all layers read layer 0's values, so what their own projection does is without effect."""
    mixer = {"kind": "attention", "heads": 4, "value_residual": {"first": 1.0, "own": 0.0, "learned": False}}
    model = tinycore.build(testing.stack(mixer=mixer)).double()
    tokens = torch.arange(9)[None]
    mixers = [layer.branches["mixer"] for layer in model.layers]
    assert [len(list(mixer.value_residual.parameters())) for mixer in mixers] == [0, 0]
    with torch.no_grad():
        before = logits(model, tokens)
        mixers[1].v.weight.mul_(-3.0)
        assert torch.equal(logits(model, tokens), before)
        mixers[0].v.weight.mul_(-3.0)
        assert not torch.allclose(logits(model, tokens), before)


def test_a_layer_called_twice_reads_the_values_of_its_first_call() -> None:
    mixer = {"kind": "attention", "heads": 4, "value_residual": {}}
    config = testing.stack(mixer=mixer, depth={"kind": "shared", "times": 2})
    assert config.scope().value_source is None  # its second call reads the first's
    model = tinycore.build(config)
    assert all(len(list(layer.branches["mixer"].value_residual.parameters())) == 2 for layer in model.layers)


def test_rope_keeps_length_and_depends_on_differences_only() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, DIM, dtype=torch.float64, generator=draw)

    def product(at: int, other: int) -> float:
        turned = []
        for vector, position in ((q, at), (k, other)):
            tables = rotary_tables(Context(torch.tensor([[position]])), DIM, 10000.0, torch.float64)
            turned.append(rotate(vector, tables))
        assert turned[0].norm().item() == pytest.approx(q.norm().item(), rel=1e-12)
        return float((turned[0] * turned[1]).sum())

    assert product(0, 0) == pytest.approx(float((q * k).sum()), rel=1e-12)
    for distance in (0, 1, 5):
        products = [product(base + distance, base) for base in (0, 1, 100, 5000)]
        assert max(products) - min(products) < 1e-9
    assert abs(product(1, 0) - product(0, 0)) > 1e-3
    assert abs(product(1, 0) - product(0, 1)) > 1e-3, "before and after are different things"


def test_rope_tables_are_shared_within_a_pass_and_kept_apart_by_shape() -> None:
    ctx = Context(torch.arange(3)[None])
    first = rotary_tables(ctx, 4, 10000.0, torch.float32)
    assert rotary_tables(ctx, 4, 10000.0, torch.float32) is first
    assert rotary_tables(ctx, 4, 500.0, torch.float32) is not first
    assert rotary_tables(ctx, 8, 10000.0, torch.float32)[0].shape == (1, 1, 3, 4)
    assert rotary_tables(ctx, 4, 10000.0, torch.bfloat16)[0].dtype == torch.float32


def test_qk_norm_makes_attention_blind_to_the_scale_of_queries_and_keys() -> None:
    module = build(heads=4, kv_heads=2, qk_norm=True)
    x = torch.randn(1, 5, module.q.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ctx = Context(torch.arange(5)[None])
    with torch.no_grad():
        before = module(x, {}, ctx, None)[0]
        module.q.weight.mul_(1000.0)
        module.k.weight.mul_(1000.0)
        after = module(x, {}, ctx, None)[0]
    assert (before - after).abs().max() < 1e-3  # eps stops mattering, nothing else changes


def state_after(window: int | None, lengths: list[int], doc_ids: torch.Tensor | None = None) -> KeyValueState:
    model = tinycore.build(testing.stack(mixer={"kind": "attention", "heads": 4, "window": window}))
    state: dict = {}
    start = 0
    for length in lengths:
        rows = 1 if doc_ids is None else len(doc_ids)
        chunk = None if doc_ids is None else doc_ids[:, start : start + length]
        state = model(torch.zeros(rows, length, dtype=torch.long), doc_ids=chunk, state=state).state
        start += length
    return state["0/mixer/kv"]


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("lengths", [[1], [4], [40], [3, 4, 1], [1] * 12])
def test_windowed_state_keeps_what_a_later_token_can_see(window: int, lengths: list[int]) -> None:
    kept = state_after(window, lengths)
    total = sum(lengths)
    assert kept.positions[0].tolist() == list(range(total))[max(0, total - window + 1) :]


def test_windowed_state_of_ragged_rows_keeps_the_newest_tokens_of_every_row() -> None:
    doc_ids = torch.tensor([[0, 0, 0, 0, -1, -1], [0, 0, 0, 0, 0, 0]])
    kept = state_after(3, [6], doc_ids)
    assert kept.documents is not None
    for row in range(2):
        valid = kept.positions[row][kept.documents[row] != PADDING].tolist()
        newest = int((doc_ids[row] != PADDING).sum()) - 1
        assert valid[-2:] == [newest - 1, newest]


def test_a_window_that_has_forgotten_cannot_be_truncated() -> None:
    kept = state_after(4, [9])
    assert kept.truncate(9).keys.shape == kept.keys.shape
    with pytest.raises(ValueError, match="the window has forgotten tokens"):
        kept.truncate(8)
    fresh = state_after(40, [9])
    assert fresh.truncate(5).positions.tolist() == [[0, 1, 2, 3, 4]]


def test_packed_states_cannot_be_truncated() -> None:
    state = tinycore.build(testing.stack())(torch.zeros(1, 2, dtype=torch.long), doc_ids=torch.zeros(1, 2).long()).state
    with pytest.raises(ValueError, match="packed or padded; use snapshot"):
        tinycore.state.truncate(state, 1)
    with pytest.raises(ValueError, match="packed or padded; use snapshot"):
        state["0/mixer/kv"].truncate(1)
    with pytest.raises(ValueError, match="Tensor at 'x' cannot forget; use snapshot"):
        tinycore.state.truncate({"x": torch.zeros(1)}, 1)


def test_linears_are_overridden_by_projection() -> None:
    linear = {"k": {"kind": "dense", "bias": True}}
    module = tinycore.build(
        testing.stack(mixer={"kind": "attention", "heads": 4, "linear": linear}, linear={"kind": "dense"})
    ).layers[0]
    biased = {name for name, _ in module.named_parameters() if name.endswith("bias")}
    assert biased == {"branches.mixer.k.bias"}
