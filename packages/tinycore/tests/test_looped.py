"""Looped depth is what it says, held to stacks written out, to loops over tokens, and to its own settings that do nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import begin
from tinycore.depth.previous import Newest, previous
from tinycore.ffns.swiglu import SwiGLU
from tinycore.testing.probes import awake


def looped(**depth: Any) -> tinycore.ModelConfig:
    return testing.stack(depth={"kind": "looped", **depth})


def like(config: tinycore.ModelConfig, model: tinycore.Decoder) -> tinycore.Decoder:
    """A model of `config` with the weights that it shares with `model`."""
    other = tinycore.build(config).to(next(model.parameters()).dtype)
    other.load_state_dict(model.state_dict(), strict=False)
    return other.train(model.training)


@pytest.mark.parametrize(
    "options", [{}, {"step": "add"}, {"step": "adaln"}, {"injection": True, "feedback": True}], ids=str
)
def test_one_loop_of_a_fresh_model_is_plain_bit_for_bit(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = tinycore.build(testing.stack())
    once = like(looped(loops=1, **options), plain)
    rows = testing.packed_rows(plain.config, 3, 16)
    outputs = [model(rows.tokens, rows.targets(), rows.doc_ids, return_logits=True) for model in (plain, once)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert torch.equal(outputs[0].loss, outputs[1].loss)


def test_loops_are_a_stack_written_out() -> None:
    model = awake(looped(loops=3))
    mapping = model.config.to_dict()
    mapping["depth"] = {"kind": "plain"}
    mapping["layers"][0]["repeat"] = 6
    written = tinycore.build(tinycore.ModelConfig.from_dict(mapping)).double().eval()
    with torch.no_grad():
        for name, tensor in written.state_dict().items():
            head, number, *rest = name.split(".", 2) if name.startswith("layers.") else (name, "", "")
            source = f"{head}.{int(number) % 2}.{rest[0]}" if number else name
            tensor.copy_(model.state_dict()[source])
    rows = testing.packed_rows(model.config, 3, 16)
    results = [each(rows.tokens, rows.targets(), rows.doc_ids, return_logits=True) for each in (model, written)]
    for out in results:
        out.loss.backward()
    assert (results[0].logits - results[1].logits).abs().max() < 1e-12
    for name, parameter in model.layers[1].named_parameters():
        copies = [written.layers[2 * loop + 1].get_parameter(name).grad for loop in range(3)]
        assert (parameter.grad - sum(copies)).abs().max() < 1e-12, name


def test_parameters_grow_by_a_vector_a_loop() -> None:
    counts = [tinycore.count(looped(loops=loops, step="add")).parameters for loops in (1, 2, 5)]
    assert [count - counts[0] for count in counts] == [0, 16, 64]
    assert tinycore.count(looped(loops=9)).parameters == tinycore.count(testing.stack()).parameters


def test_residual_outputs_are_scaled_for_all_calls_once() -> None:
    torch.manual_seed(0)
    config = testing.stack(depth={"kind": "looped", "loops": 8}, ffn={"kind": "swiglu", "hidden": 4096})
    down: Any = tinycore.build(config).layers[0].branches["ffn"]
    assert down.down.weight.std().item() == pytest.approx((2 * 16) ** -0.5 / 4096**0.5, rel=0.02)


def test_a_threshold_that_never_fires_is_full_depth() -> None:
    full = awake(looped(loops=3, step="add"))
    halting = like(looped(loops=3, step="add", halt={"threshold": 1.0}), full)
    rows = testing.packed_rows(full.config, 3, 16)
    out = halting(rows.tokens, doc_ids=rows.doc_ids)
    assert torch.equal(out.logits, full(rows.tokens, doc_ids=rows.doc_ids).logits)
    assert out.values["steps"].eq(3).all()
    assert out.stats["depth/loops"] == (3 * rows.valid.sum(), rows.valid.sum())


def test_a_threshold_of_zero_is_one_loop() -> None:
    halting = awake(looped(loops=3, halt={"threshold": 0.0}))
    once = like(looped(loops=1, halt={}), halting)
    tokens = testing.single_rows(halting.config, 2, 9).tokens
    out = halting(tokens)
    assert torch.equal(out.logits, once(tokens).logits)
    assert out.values["steps"].eq(1).all()


def test_halted_tokens_stay_and_are_still_read() -> None:
    """Written out with every token's state at hand: a halted one is the input of every later layer, unchanged."""
    config = looped(loops=3, step="add", halt={"threshold": 0.5, "saturation": 0.9})
    model = awake(config, seed=3)
    tokens = testing.single_rows(config, 4, 12).tokens
    depth: Any = model.depth
    ctx, _ = begin(tokens, None, None)
    x = model.embed(tokens)
    running = torch.ones(tokens.shape, dtype=torch.bool)
    used = torch.zeros(tokens.shape)
    for loop in range(3):
        used += running
        x = torch.where(running[..., None], x + depth.steps.weight[loop], x)
        for layer in model.layers:
            x = torch.where(running[..., None], layer(x, {}, ctx, None)[0], x)
        normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
        p = (normed * depth.halting.weight).sum(-1).add(depth.halting.bias).sigmoid()
        running = running & (p <= 0.5)
    out = model(tokens)
    assert 1 < used.mean() < 3, "some halt and some do not"
    assert torch.equal(out.values["steps"], used)
    assert (out.hidden - model.norm(x)).abs().max() < 1e-12


def test_nothing_but_keys_and_values_is_computed_once_all_have_halted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = awake(looped(loops=4, halt={"threshold": 0.0}))
    calls: list[int] = []
    forward = SwiGLU.forward
    monkeypatch.setattr(SwiGLU, "forward", lambda self, *a: (calls.append(1), forward(self, *a))[1])
    with torch.no_grad():
        state = model(torch.tensor([[1, 2, 3]])).state
        assert len(calls) == 2, "two layers, one loop"
        model(torch.tensor([[4]]), state=state)
    assert len(calls) == 4
    assert {path for path in state if path.endswith("kv")} == {f"{n}.{k}/mixer/kv" for n in range(4) for k in range(2)}


def test_training_draws_its_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tinycore.build(looped(loops=4, fewest=2)).train()
    made: list[int] = []
    monkeypatch.setattr(type(model.depth), "_compare", lambda self, outputs, *_: made.append(len(outputs)))
    torch.manual_seed(0)
    for _ in range(60):
        model(torch.zeros(1, 2, dtype=torch.long))
    assert set(made) == {2, 3, 4}
    assert min(made.count(loops) for loops in (2, 3, 4)) > 8
    model.eval()
    model(torch.zeros(1, 2, dtype=torch.long))
    assert made[-1] == 4


def test_losses_that_compare_loops_are_their_definitions() -> None:
    model = awake(looped(loops=3, similarity=0.5, halt={"saturation": 0.95})).train()
    rows = testing.packed_rows(model.config, 3, 16)
    outputs: list[torch.Tensor] = []
    model.layers[1].register_forward_hook(lambda module, given, out: outputs.append(out[0]))
    out = model(rows.tokens, rows.targets(), rows.doc_ids)
    valid, total, halting = rows.valid, 0.0, 0.0
    readout: Any = model.depth
    for b, t in valid.nonzero().tolist():
        states = [each[b, t] for each in outputs]
        total += sum(1 - float(F.cosine_similarity(a, c, dim=0)) for a, c in pairwise(states))
        for state in states[:2]:
            right = float(F.cosine_similarity(state, states[2], dim=0)) >= 0.95
            p = readout.halting(state).sigmoid()
            halting -= float((p if right else 1 - p).log())
    number = int(valid.sum())
    assert float(out.losses["similarity"][0].detach()) == pytest.approx(0.5 * total, rel=1e-9)
    assert float(out.losses["halt"][0].detach()) == pytest.approx(halting, rel=1e-9)
    assert int(out.losses["similarity"][1]) == int(out.losses["halt"][1]) == 2 * number


def test_the_token_before_is_found_past_padding_and_chunks() -> None:
    config = testing.stack()
    rows = testing.packed_rows(config, 4, 20, seed=5)
    assert rows.doc_ids is not None
    x = torch.randn(4, 20, 3)
    expected = torch.zeros_like(x)
    for b in range(4):
        for t in range(20):
            same = [s for s in range(t) if rows.doc_ids[b, s] == rows.doc_ids[b, t]]
            if rows.doc_ids[b, t] >= 0 and same:
                expected[b, t] = x[b, same[-1]]
    ctx, _ = begin(rows.tokens, rows.doc_ids, None)
    assert torch.equal(previous(x, ctx, None)[0], expected)
    found, state, newest = [], None, None
    for start, end in ((0, 3), (3, 4), (4, 11), (11, 20)):
        ctx, stream = begin(rows.tokens[:, start:end], rows.doc_ids[:, start:end], state)
        state = {"stream": stream}
        part, newest = previous(x[:, start:end], ctx, newest)
        found.append(part)
    assert torch.equal(torch.cat(found, 1), expected)
    assert isinstance(newest, Newest)


def test_other_numbers_of_loops_fit_the_same_weights() -> None:
    trained = looped(loops=2, step="add", fewest=1)
    settled = trained.settled().to_dict()
    for loops in (1, 5):
        other = tinycore.ModelConfig.from_dict({**settled, "depth": {**settled["depth"], "loops": loops}})
        assert tinycore.count(other).parameters == tinycore.count(trained).parameters
        model = tinycore.build(other)
        model.load_state_dict(tinycore.build(trained).state_dict())
        assert len(model.config.call_sites()) == 2 * loops


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        ({"loops": 0}, r"model\.depth\.loops: 0 is not between 1 and 1024"),
        ({"fewest": 3}, r"model\.depth\.fewest: 3 is not between 1 and loops 2"),
        ({"steps": 2}, r"model\.depth\.steps: step is none, so there are none"),
        ({"start": 2}, r"model\.depth\.start: the loop from layer 2 to 2 is none in a stack of 2"),
        ({"stop": 3}, r"model\.depth\.start: the loop from layer 0 to 3 is none"),
        ({"similarity": -1.0}, r"model\.depth\.similarity: -1\.0 is negative"),
        ({"halt": {"threshold": 2.0}}, r"model\.depth\.halt\.threshold: 2\.0 is not between 0 and 1"),
        ({"halt": {"saturation": 1.0}}, r"model\.depth\.halt\.saturation: 1\.0 is not between -1 and 1"),
    ],
)
def test_what_cannot_be_is_one_line(depth: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        looped(**depth)


def test_calls_are_bounded() -> None:
    mapping = looped(loops=1024).to_dict()
    mapping["layers"][0]["repeat"] = 100
    with pytest.raises(ConfigError, match=r"loops: 1024 of 100 layers are more than 65,536 calls"):
        tinycore.ModelConfig.from_dict(mapping)


def test_what_joins_calls_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"residual\.kind: denseformer joins calls"):
        testing.stack(depth={"kind": "looped"}, residual={"kind": "denseformer"})
