"""Titans against the papers' recurrence, written here token by token in float64 with autograd for the inner gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tinycore
from tinycore import testing
from tinycore.context import Context
from tinycore.families import Scope
from tinycore.mixers.titans import Titans
from tinycore.optim.groups import decay_groups

DIM = 12


def scope() -> Scope:
    return tinycore.ModelConfig.from_dict(
        {"vocab_size": 8, "dim": DIM, "max_seq_len": 64, "layers": [{"ffn": {"hidden": 4, "kind": "swiglu"}}]}
    ).scope()


def mixer(**settings: Any) -> Titans:
    torch.manual_seed(0)
    built = Titans.Config(**{"heads": 2, "chunk": 4, **settings}).build(scope()).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return built


def inputs(length: int, rows: int = 1, seed: int = 1) -> Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(module: Titans, x: Tensor) -> Tensor:
    return module(x, {}, Context(torch.arange(x.shape[1])[None], contiguous=True), None)[0]


def answer(weights: list[Tensor], x: Tensor) -> Tensor:
    """M(x) of one vector: one matrix (h, h), or x + D^T silu(U x)."""
    if len(weights) == 1:
        return weights[0] @ x
    return x + weights[1].T @ torch.nn.functional.silu(weights[0] @ x)


def by_hand(module: Titans, x: Tensor) -> Tensor:
    """One document x (T, D) -> (T, D)."""
    config, length = module.config, len(x)
    width = DIM // config.heads
    raw = {name: x @ getattr(module, name).weight.T for name in ("q", "k", "v", "rates", "gate")}
    if module.conv_weight is not None:
        for part, name in enumerate("qkv"):
            taps = module.conv_weight[part * DIM : (part + 1) * DIM].T.flip(0)  # the token's own first
            raw[name] = torch.stack(
                [sum(taps[j] * raw[name][t - j] for j in range(len(taps)) if t >= j) for t in range(length)]  # ty: ignore
            )
    out = []
    for head in range(config.heads):
        mine = slice(head * width, (head + 1) * width)
        q, k, v = (torch.nn.functional.silu(raw[name][:, mine]) for name in "qkv")
        q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
        gates = raw["rates"].view(length, config.heads, -1)[:, head]
        biases = module.rates_bias[:, head]
        start = list(module.memory[head].chunk(config.depth))
        momentum = [torch.zeros_like(matrix) for matrix in start]
        answers: list[Tensor] = []
        for first in range(0, length, config.chunk):
            tokens = range(first, min(first + config.chunk, length))
            answers += [answer(start, q[t]) for t in tokens]
            if len(tokens) < config.chunk:
                break
            change = [torch.zeros_like(matrix) for matrix in start]
            for t in tokens:
                theta = config.ceiling * torch.sigmoid(gates[t, 0] + biases[0])
                value = answer(start, v[t]) if config.self_modifying else v[t]
                leaves = [matrix * 1 for matrix in start]
                # the inner gradient sees `value` as a constant, the outer one does not
                loss = (answer(leaves, k[t]) - value).square().sum()
                for i, gradient in enumerate(torch.autograd.grad(loss, leaves, create_graph=True)):
                    change[i] = change[i] - theta * gradient
                if config.self_modifying:
                    change[0] = change[0] - theta * torch.outer(start[0] @ k[t], k[t])
                    if len(start) == 2:
                        seen = torch.nn.functional.silu(start[0] @ k[t])
                        unlearnt = torch.outer(start[1].T @ seen, seen) / (seen.square().sum() + 1e-6)
                        change[1] = change[1] - theta * unlearnt.T
            if config.write_limit is not None:
                longest = config.write_limit * (width if len(start) == 1 else width * (1 + config.expansion)) ** 0.5
                norm = (sum(matrix.square().sum() for matrix in change) + 1e-12) ** 0.5
                change = [matrix * longest * torch.tanh(norm / longest) / norm for matrix in change]
            here = gates[list(tokens)].mean(0)
            alpha = torch.sigmoid(here[1] + biases[1])
            if config.momentum:
                eta = torch.sigmoid(here[2] + biases[2])
                change = momentum = [eta * old + new for old, new in zip(momentum, change, strict=True)]
            start = [(1 - alpha) * matrix + new for matrix, new in zip(start, change, strict=True)]
        y = torch.stack(answers)
        out.append(y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5) * module.norm.weight)
    return (torch.cat(out, -1) * torch.nn.functional.silu(raw["gate"])) @ module.o.weight.T


VARIANTS = [
    {},
    {"conv": 0, "momentum": False},
    {"depth": 1, "chunk": 3, "learning_rate": 0.4},
    {"chunk": 1, "conv": 2, "expansion": 1, "learning_rate": 0.4},
    {"self_modifying": True},
    {"self_modifying": True, "depth": 1, "chunk": 2, "momentum": False, "learning_rate": 0.3},
    {"heads": 1, "chunk": 7, "expansion": 2},
    {"write_limit": None},
    {"self_modifying": True, "write_limit": 0.01},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_equals_the_recurrence_by_hand_with_its_outer_gradients(settings: dict[str, Any]) -> None:
    module, x = mixer(**settings), inputs(15).requires_grad_()
    found, expected = run(module, x)[0], by_hand(module, x[0])
    assert (found - expected).abs().max() < 1e-11
    weights = inputs(15, seed=2)[0]
    leaves = [x, *module.parameters()]
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for ours, other in zip(torch.autograd.grad((found * weights).sum(), leaves), theirs, strict=True):
        assert other.abs().max() > 0
        assert (ours - other).abs().max() < 1e-10


def test_a_matrix_memory_of_single_tokens_is_the_delta_rule() -> None:
    """M <- M - 2 theta (M k - v) k^T, without momentum or forgetting, read before it is written."""
    module = mixer(heads=1, depth=1, chunk=1, conv=0, momentum=False, learning_rate=0.8, write_limit=None)
    with torch.no_grad():
        module.rates_bias[1] = -1e9
        module.norm.weight.fill_(1.0)
    x = inputs(9)
    q, k, v = (torch.nn.functional.silu(part(x[0])) for part in (module.q, module.k, module.v))
    q, k = (part * (part.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for part in (q, k))
    theta = 0.8 * torch.sigmoid(module.rates(x[0])[:, 0] + module.rates_bias[0, 0])
    matrix, answers = module.memory[0], []
    for t in range(9):
        answers.append(matrix @ q[t])
        matrix = matrix - 2 * theta[t] * torch.outer(matrix @ k[t] - v[t], k[t])
    y = torch.nn.functional.rms_norm(torch.stack(answers), (DIM,), eps=1e-5) * torch.nn.functional.silu(
        module.gate(x[0])
    )
    assert (run(module, x)[0] - module.o(y)).abs().max() < 1e-12


def test_a_token_is_read_from_the_next_chunk_on() -> None:
    module, x = mixer(conv=0), inputs(12)
    expected = run(module, x)
    for token in range(12):
        other = x.clone()
        other[0, token] += 1.0
        changed = (run(module, other) - expected)[0].abs().amax(-1) > 1e-12
        after = (token // 4 + 1) * 4
        assert changed.nonzero().flatten().tolist() == [token, *range(after, 12)]


def test_without_writing_and_forgetting_it_is_a_static_network() -> None:
    module, x = mixer(learning_rate=0.0, conv=0), inputs(15, rows=2)
    with torch.no_grad():
        module.rates_bias[1] = -1e9  # alpha = 0
    q = torch.nn.functional.silu(module.q(x)).unflatten(-1, (2, -1))
    q = q * (q.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
    up, down = module.memory.chunk(2, dim=1)
    hidden = torch.nn.functional.silu(torch.einsum("bthi,hei->bthe", q, up))
    read = module.norm(q + torch.einsum("bthe,hei->bthi", hidden, down)).flatten(-2)
    assert (run(module, x) - module.o(read * torch.nn.functional.silu(module.gate(x)))).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["k", "v", "rates"])
def test_keys_values_and_rates_learn_through_writes_alone(name: str) -> None:
    for length, reached in ((4, False), (5, True)):
        module = mixer()
        run(module, inputs(length)).square().sum().backward()
        gradient = getattr(module, name).weight.grad
        assert bool(gradient.abs().max() > 0) == reached


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_stream_in_pieces_equals_one_call(settings: dict[str, Any]) -> None:
    """With settings that the invariant suite's examples leave out: no convolution, chunks of one token."""
    config = testing.stack(mixer={"kind": "titans", "heads": 2, "chunk": 4, **settings})
    for invariant in ("streams", "isolated", "alone", "causal"):
        testing.CHECKS[invariant](config)


def test_chunks_count_the_tokens_that_the_mixer_sees() -> None:
    """Routing leaves tokens out: of two documents some, the first among them, and positions with gaps."""
    module, x = mixer(), inputs(20)
    documents = torch.tensor([[3] * 12 + [9] * 8])
    kept = torch.tensor([[1, 2, 4, 5, 6, 8, 9, 11, 14, 15, 16, 17, 18, 19]])
    whole = Context(torch.cat([torch.arange(12), torch.arange(8)])[None], documents, contiguous=True)
    y = module(x[:, kept[0]], {}, whole.gather(kept), {})[0]
    for document, slots in ((0, slice(0, 8)), (1, slice(8, 14))):
        alone = by_hand(module, x[0, kept[0]][slots])
        assert (y[0, slots] - alone).abs().max() < 1e-11, document
    state = module(x[:, kept[0, :5]], {}, whole.gather(kept[:, :5]), {})[2]
    rest = module(x[:, kept[0, 5:]], {}, whole.gather(kept[:, 5:]), state)[0]
    assert (rest - y[:, 5:]).abs().max() < 1e-11


def test_only_the_sequences_own_weights_change() -> None:
    module, x = mixer(), inputs(13, rows=2)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    ctx = Context(torch.arange(13)[None], contiguous=True)
    state = module(x, {}, ctx, {})[2]["memory"]
    assert all(torch.equal(before[name], parameter) for name, parameter in module.named_parameters())
    assert (state.weights - module.memory).abs().amax((1, 2, 3)).min() > 1e-3
    assert (state.weights[0] - state.weights[1]).abs().max() > 1e-3


def test_the_state_has_one_size() -> None:
    config = testing.stack(mixer={"kind": "titans", "heads": 2, "chunk": 4})
    counts = tinycore.count(config)
    assert len({counts.state_bytes(length) for length in (1, 4, 63, 1000)}) == 1


@pytest.mark.parametrize("settings", [{}, {"depth": 1, "self_modifying": True}], ids=str)
def test_repeated_keys_do_not_let_the_memory_grow(settings: dict[str, Any]) -> None:
    """At the default ceiling, with the largest inner learning rate and momentum, one token repeated for 100 chunks."""
    module = mixer(**settings)
    with torch.no_grad():
        module.rates_bias[0], module.rates_bias[2] = 20.0, 1.0
        weights = module(inputs(1).expand(1, 400, DIM), {}, Context(torch.arange(400)[None]), {})[2]["memory"].weights
    assert weights.abs().max() < 10 * module.memory.abs().max()


def test_bf16_autocast_keeps_the_memory_in_float32() -> None:
    module, x = mixer().float(), inputs(13).float()
    expected = run(module, x)
    with torch.autocast("cpu", torch.bfloat16):
        y, _, state, _ = module(x, {}, Context(torch.arange(13)[None]), {})
    assert state["memory"].weights.dtype == torch.float32
    assert (y.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_start_values_gates_and_filters_do_not_decay() -> None:
    module = mixer()
    decayed = {id(parameter) for parameter in decay_groups(module, 0.1)[0]["params"]}
    names = {name for name, parameter in module.named_parameters() if id(parameter) in decayed}
    assert names == {f"{name}.weight" for name in ("q", "k", "v", "rates", "gate", "o")}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": 0}, "heads: 0"),
        ({"chunk": 0}, "chunk: 0"),
        ({"expansion": 0}, "expansion: 0"),
        ({"conv": 1}, "conv: 1"),
        ({"learning_rate": -0.1}, "learning_rate: -0.1"),
        ({"heads": 3}, "heads: 3 does not divide dim 16"),
        ({"depth": 3}, "depth: expected one of 1, 2"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(tinycore.ConfigError, match=words):
        testing.stack(mixer={"kind": "titans", "heads": 2, **settings})


@pytest.mark.parametrize("self_modifying", [False, True])
def test_large_weights_do_not_make_a_memory_diverge(self_modifying: bool) -> None:
    """Weights as training makes them: without a limit the writes grow past every number."""
    for limit, finite in ((None, False), (0.1, True)):
        module = mixer(write_limit=limit, self_modifying=self_modifying, learning_rate=0.5)
        with torch.no_grad():
            module.memory.mul_(5)
            module.v.weight.mul_(20)
        x = inputs(400).requires_grad_()
        y = run(module, x)
        y.sum().backward()
        assert x.grad is not None
        assert bool(y.isfinite().all() and x.grad.isfinite().all()) == finite
