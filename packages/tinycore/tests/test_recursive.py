"""Recursive depth: the equations written out, gradients through the last cycle alone, latents that carry none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import tinycore
from tinycore import objectives, testing
from tinycore.context import begin
from tinycore.depth.calls import Latents
from tinycore.testing.probes import awake, single_rows

IN_PLACE = {"kind": "attention", "heads": 4, "kv_heads": 2, "causal": False}


def config(high: int, low: int, supervision: int = 1, **parts: Any) -> tinycore.ModelConfig:
    depth = {"kind": "recursive", "H_cycles": high, "L_cycles": low, "supervision": supervision}
    return testing.stack(depth=depth, **parts)


def recursive(high: int, low: int, supervision: int = 1, **parts: Any) -> tinycore.Decoder:
    return awake(config(high, low, supervision, **parts))


def net(model: tinycore.Decoder, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """One application of the stack."""
    ctx, _ = begin(rows, None, None)
    for layer in model.layers:
        x, _, _, _ = layer(x, {}, ctx, None)
    return x


def test_one_cycle_of_one_is_two_explicit_calls() -> None:
    model = recursive(1, 1)
    rows = single_rows(model.config, 2, 9).tokens
    thought = net(model, model.depth.low + model.depth.high + model.embed(rows), rows)
    answer = net(model, model.depth.high + thought, rows)
    out = model(rows)
    assert (out.hidden - model.norm(answer)).abs().max() < 1e-12
    assert (out.latents.high - answer).abs().max() < 1e-12
    assert (out.latents.low - thought).abs().max() < 1e-12


@pytest.mark.parametrize("parts", [{}, {"mixer": IN_PLACE}], ids=["causal", "in place"])
def test_all_steps_at_once_are_one_after_another(parts: dict[str, Any]) -> None:
    model = recursive(2, 3, 3, **parts)
    rows = single_rows(model.config, 2, 9).tokens
    latents, x = model.begin(rows), model.embed(rows)
    high, low = latents
    for _ in range(3):
        out = model(rows, latents=latents)
        latents = out.latents
        assert not latents.high.requires_grad
        assert not latents.low.requires_grad
        for _ in range(2):
            for _ in range(3):
                low = net(model, low + high + x, rows)
            high = net(model, high + low, rows)
    assert (out.logits - model(rows).logits).abs().max() < 1e-12
    assert (out.hidden - model.norm(high)).abs().max() < 1e-12


@pytest.mark.parametrize(("high", "low"), [(1, 1), (3, 2), (2, 6)])
def test_only_the_last_cycle_carries_gradients(high: int, low: int) -> None:
    model = recursive(high, low, 2).train()
    fired: list[int] = []

    def watch(module: torch.nn.Module, inputs: Any, output: tuple[torch.Tensor, ...]) -> None:
        if output[0].requires_grad:
            output[0].register_hook(lambda gradient: fired.append(1))

    for layer in model.layers:
        layer.register_forward_hook(watch)
    rows = single_rows(model.config, 2, 9).tokens
    for latents in (model.begin(rows), None):
        fired.clear()
        model(rows, targets=rows, latents=latents).loss.backward()
        assert len(fired) == (low + 1) * len(model.layers)


def test_gradients_are_those_of_the_last_cycle_from_constants() -> None:
    """Finite differences of the last cycle, whose start is held fixed."""
    model = recursive(2, 2)
    rows = single_rows(model.config, 2, 9).tokens
    with torch.no_grad():
        x, (high, low) = model.embed(rows), model.begin(rows)
        for _ in range(2):
            low = net(model, low + high + x, rows)
        start = Latents(net(model, high + low, rows), low)

    def last_cycle() -> torch.Tensor:
        x, (high, low) = model.embed(rows), start
        for _ in range(2):
            low = net(model, low + high + x, rows)
        logits = model.logits(model.norm(net(model, high + low, rows)))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows.flatten())

    model(rows, targets=rows).loss.backward()
    weight = model.layers[1].branches["ffn"].up.weight
    with torch.no_grad():
        for place in ((0, 0), (5, 3)):
            kept, step = weight[place].clone(), 1e-6
            values = []
            for sign in (1, -1):
                weight[place] = kept + sign * step
                values.append(last_cycle())
            weight[place] = kept
            assert weight.grad[place].item() == pytest.approx(float(values[0] - values[1]) / (2 * step), rel=1e-5)


def test_memory_of_training_does_not_grow_with_cycles_or_supervision() -> None:
    def kept(high: int, supervision: int) -> int:
        model = recursive(high, 2, supervision).train()
        rows = single_rows(model.config, 4, 16).tokens
        held: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(rows, targets=rows)
        return sum(tensor.untyped_storage().nbytes() for tensor in held.values())

    assert kept(1, 1) == kept(5, 1) == kept(2, 4)
    counts = [tinycore.count(config(high, 2, steps)) for high, steps in ((1, 1), (5, 1), (2, 4))]
    assert len({count.memory(4, 16).activations for count in counts}) == 1


@pytest.mark.parametrize("length", [7, 512])
def test_language_model_is_causal_and_streams_at_any_length(length: int) -> None:
    long = tinycore.ModelConfig.from_dict(config(2, 2, 2).to_dict() | {"max_seq_len": 512})
    model = awake(long)
    rows = single_rows(long, 2, length).tokens
    with torch.no_grad():
        whole = model(rows)
        edited = rows.clone()
        edited[:, length // 2] = (edited[:, length // 2] + 1) % 32
        assert (model(edited).logits - whole.logits)[:, : length // 2].abs().max() == 0
        state, pieces = {}, []
        for piece in rows.split([length - 3, 1, 1, 1], 1):
            out = model(piece, state=state)
            state = out.state
            pieces.append(out.logits)
    assert (torch.cat(pieces, 1) - whole.logits).abs().max() < 1e-9
    assert len(whole.state) - 1 == 2 * 2 * 3 * 2, "a cache for each of supervision x H x (L + 1) x layers"


def test_generates_what_the_whole_forward_pass_says() -> None:
    model = recursive(2, 2, 2)
    (found,) = tinycore.generate(model, [[1, 2, 3]], max_new_tokens=20, temperature=0.0)
    ids = [1, 2, 3]
    with torch.no_grad():
        for _ in range(20):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert found[0].ids == ids[3:]


def with_halting(supervision: int = 4) -> tinycore.Decoder:
    depth = {"kind": "recursive", "H_cycles": 1, "L_cycles": 1, "supervision": supervision}
    model = awake(testing.stack(heads={"kind": "halt"}, depth=depth)).train()
    with torch.no_grad():
        model.heads["halt"].q.weight.zero_()
    return model


def test_halting_head_starts_at_one_in_a_hundred_and_fifty() -> None:
    model = tinycore.build(with_halting().config)
    logits = model(torch.zeros(2, 5, dtype=torch.long)).values["halt"]
    assert logits.sigmoid().tolist() == [[pytest.approx(0.0066929, rel=1e-4)] * 2] * 2


def test_deep_supervision_goes_on_from_detached_latents() -> None:
    model = recursive(1, 1, 3).train()
    rows = single_rows(model.config, 2, 9).tokens
    expected, latents = [], model.begin(rows)
    for _ in range(3):
        out = model(rows, targets=rows, latents=latents)
        latents = out.latents
        expected.append((out.losses["lm"][0].item(), True))
    found = [(losses["lm"][0].item(), step) for losses, step in objectives.deep_supervision(model, rows, rows)]
    assert found == expected
    assert objectives.of(model.config) is objectives.deep_supervision
    assert objectives.of(testing.stack()) is objectives.next_token


def test_rows_that_are_solved_leave_and_the_halting_loss_knows_which() -> None:
    model = with_halting()
    rows = single_rows(model.config, 5, 9).tokens
    with torch.no_grad():
        answers = model(rows, latents=model.begin(rows)).logits.argmax(-1)
        answers[:2, 4] = (answers[:2, 4] + 1) % 32  # two rows are not solved
        model.heads["halt"].q.bias.fill_(0.5)  # all want to halt
    torch.manual_seed(2)
    assert (objectives._least_steps(5, 4, torch.device("cpu")) == 1).all(), "the seed lets every row go"
    torch.manual_seed(2)
    (losses, step), *rest = list(objectives.deep_supervision(model, rows, answers))
    assert step
    assert rest == [], "every row leaves after its first step"
    total, count = losses["halt"]
    assert count.item() == 5
    expected = 2 * math.log(1 + math.exp(0.5)) + 3 * math.log(1 + math.exp(-0.5))
    assert total.item() == pytest.approx(0.5 * expected, rel=1e-6)
    with torch.no_grad():
        model.heads["halt"].q.bias.fill_(-0.5)  # none does
    assert len(list(objectives.deep_supervision(model, rows, answers))) == 4


def test_a_tenth_of_the_rows_is_kept_for_longer() -> None:
    torch.manual_seed(0)
    least = objectives._least_steps(20_000, 16, torch.device("cpu"))
    explored = least > 1
    assert explored.double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert set(least[explored].tolist()) == set(range(2, 17))
    model = with_halting(6)
    with torch.no_grad():
        model.heads["halt"].q.bias.fill_(1.0)
    rows = single_rows(model.config, 400, 3).tokens
    left = [int(losses["halt"][1]) for losses, _ in objectives.deep_supervision(model, rows, rows)]
    assert left[0] == 400
    assert 20 < left[1] < 65
    assert left == sorted(left, reverse=True)


def test_flops_of_training_are_every_step_forward_and_its_last_cycle_backward() -> None:
    once = tinycore.count(config(1, 2))
    forward, head = sum(once.forward_flops(8).values()), once.forward_flops(8)["head"]
    assert once.flops_per_token(8) == 3 * forward
    layers = forward - head
    for steps in (1, 4):
        expected = steps * (3 * layers + 2 * layers + 3 * head)
        assert tinycore.count(config(3, 2, steps)).flops_per_token(8) == pytest.approx(expected)


@pytest.mark.parametrize("policy", ["layers", "low_rank"])
def test_recomputing_gives_the_same_gradients(policy: Any) -> None:
    model = recursive(2, 2, 2).train()
    rows = single_rows(model.config, 2, 9).tokens
    found = []
    for chosen in ("none", policy):
        model.recompute(chosen)
        model.zero_grad()
        model(rows, targets=rows, latents=model.begin(rows)).loss.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_is_refused() -> None:
    with pytest.raises(tinycore.ConfigError, match=r"depth\.H_cycles: 0 is not positive"):
        config(0, 1)
    with pytest.raises(tinycore.ConfigError, match=r"depth\.supervision: layers are called 840,000 times in all"):
        config(3, 6, 20_000)
    model, rows = awake(testing.stack()), torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="latents: are for recursive depth"):
        model.begin(rows)
    with pytest.raises(ValueError, match="latents: are for recursive depth"):
        model(rows, latents=recursive(1, 1).begin(rows))
