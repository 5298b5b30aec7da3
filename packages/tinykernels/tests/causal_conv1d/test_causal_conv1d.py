"""Claim: causal_conv1d's torch and triton paths equal the tap-by-tap oracle in float64, forward and every gradient
(x, weight, bias, initial state; from y and from the final state), for any width, length and packing, empty and
very short documents included; a convolution in pieces is the whole one; documents do not see each other.

uv run pytest packages/tinykernels/tests/causal_conv1d
"""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinykernels.causal_conv1d import causal_conv1d
from tinykernels.dispatch import BackendError

BOUNDS = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2}
# batch, length, channels, taps, boundaries, bias, activation, states
CASES: dict[str, tuple[int, int, int, int, list[int] | None, bool, str | None, bool]] = {
    "one token": (1, 1, 3, 4, None, True, None, True),
    "everything": (2, 21, 5, 4, None, True, "silu", True),
    "two taps, wide": (3, 17, 70, 2, None, False, None, False),
    "longer taps than sequence": (2, 2, 4, 5, None, True, "silu", True),
    "documents, some empty": (1, 20, 9, 3, [0, 0, 10, 11, 17, 17, 20], True, "silu", True),
    "documents without states": (1, 17, 3, 4, [0, 1, 3, 17], False, "silu", False),
}


def boundaries(values: list[int] | None, device: str) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.int32, device=device)


def draw(
    batch: int, length: int, dim: int, width: int, sequences: int, bias: bool, states: bool
) -> dict[str, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(batch * length + dim * width)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": normal(batch, length, dim),
        "weight": normal(dim, width),
        "bias": normal(dim) if bias else None,
        "initial_state": normal(sequences, width - 1, dim) if states else None,
        "grad_y": normal(batch, length, dim),
        "grad_final": normal(sequences, width - 1, dim),
    }


def expected_final(x: torch.Tensor, state: torch.Tensor | None, cu: list[int] | None, width: int) -> torch.Tensor:
    """The last W - 1 rows of [initial state, document], document by document."""
    batch, length, dim = x.shape
    borders = [row * length for row in range(batch + 1)] if cu is None else cu
    flat = x.reshape(-1, dim)
    found = []
    for document, (begin, end) in enumerate(pairwise(borders)):
        before = torch.zeros(width - 1, dim, dtype=x.dtype) if state is None else state[document]
        found.append(torch.cat([before, flat[begin:end]])[-(width - 1) :])
    return torch.stack(found)


def outcome(
    drawn: dict[str, torch.Tensor | None],
    cu: list[int] | None,
    activation: Any,
    dtype: torch.dtype,
    device: str,
    backend: Any,
) -> dict[str, torch.Tensor]:
    """y, the final state and every gradient; for the oracle the final state is the loop's above."""
    leaves = {
        name: drawn[name].to(device, dtype).requires_grad_()
        for name in ("x", "weight", "bias", "initial_state")
        if drawn[name] is not None
    }
    y, final = causal_conv1d(**leaves, activation=activation, cu_seqlens=boundaries(cu, device), backend=backend)
    if backend == "naive":
        final = expected_final(leaves["x"], leaves.get("initial_state"), cu, leaves["weight"].shape[1])
    loss = (y * drawn["grad_y"].to(y)).sum() + (final * drawn["grad_final"].to(final)).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return {"y": y, "final": final} | dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_oracle(assert_close, device, case, backend) -> None:
    batch, length, dim, width, cu, bias, activation, states = CASES[case]
    drawn = draw(batch, length, dim, width, batch if cu is None else len(cu) - 1, bias, states)
    expected = outcome(drawn, cu, activation, torch.float64, "cpu", "naive")
    actual = outcome(drawn, cu, activation, torch.float32, device, backend)
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.float32], name)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_bfloat16(assert_close, device, backend) -> None:
    drawn = draw(2, 19, 6, 4, 2, True, True)
    drawn = {name: None if t is None else t.bfloat16().double() for name, t in drawn.items()}
    expected = outcome(drawn, None, "silu", torch.float64, "cpu", "naive")
    actual = outcome(drawn, None, "silu", torch.bfloat16, device, backend)
    assert actual["y"].dtype == torch.bfloat16
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.bfloat16], name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    dim=st.integers(1, 4),
    width=st.integers(2, 5),
    states=st.booleans(),
    activation=st.sampled_from([None, "silu"]),
)
def test_torch_path_is_float64_exact_on_any_packing(assert_close, lengths, dim, width, states, activation) -> None:
    cu = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    drawn = draw(1, cu[-1], dim, width, len(lengths), True, states)
    expected = outcome(drawn, cu, activation, torch.float64, "cpu", "naive")
    actual = outcome(drawn, cu, activation, torch.float64, "cpu", "torch")
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.float64], name)


def test_the_oracle_is_torch_conv1d(assert_close) -> None:
    x, weight = torch.randn(2, 9, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    y, _ = causal_conv1d(x, weight, backend="naive")
    padded = torch.nn.functional.pad(x.transpose(1, 2), (3, 0))
    expected = torch.nn.functional.conv1d(padded, weight[:, None], groups=3).transpose(1, 2)
    assert_close(y, expected, 1e-12)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_pieces_are_the_whole(assert_close, device, backend) -> None:
    drawn = draw(2, 12, 4, 4, 2, True, False)
    x, weight, bias = (drawn[name].to(device, torch.float32) for name in ("x", "weight", "bias"))
    whole, final = causal_conv1d(x, weight, bias, "silu", backend=backend)
    state, outputs = None, []
    for begin, end in ((0, 1), (1, 2), (2, 9), (9, 12)):
        part, state = causal_conv1d(x[:, begin:end], weight, bias, "silu", state, backend=backend)
        outputs.append(part)
    assert_close(torch.cat(outputs, 1), whole, 1e-6)
    assert torch.equal(state, final)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_documents_are_isolated(device, backend) -> None:
    drawn = draw(1, 14, 3, 4, 3, True, True)
    x, weight, bias, state = (
        drawn[name].to(device, torch.float32) for name in ("x", "weight", "bias", "initial_state")
    )
    cu = boundaries([0, 5, 5, 14], device)
    before, final = causal_conv1d(x, weight, bias, None, state, cu, backend=backend)
    x[:, :5] = 1e30
    after, _ = causal_conv1d(x, weight, bias, None, state, cu, backend=backend)
    assert torch.equal(before[:, 5:], after[:, 5:])
    assert torch.equal(final[1], state[1])


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_operator_is_registered_properly(device, backend) -> None:
    drawn = draw(1, 9, 4, 3, 2, True, True)
    tensors = [
        drawn[name].to(device, torch.float32).requires_grad_() for name in ("x", "weight", "bias", "initial_state")
    ]
    arguments = (*tensors, boundaries([0, 4, 9], device), True, backend)
    torch.library.opcheck(torch.ops.tinykernels.causal_conv1d.default, arguments)


@pytest.mark.slow
def test_compiles_as_one_graph(assert_close) -> None:
    leaves = [torch.randn(2, 9, 4, requires_grad=True), torch.randn(4, 3, requires_grad=True)]

    def loss(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y, final = causal_conv1d(x * 2, weight, activation="silu")
        return y.square().sum() + final.sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, fullgraph=True)
    for actual, reference in zip(torch.autograd.grad(compiled(*leaves), leaves), expected, strict=True):
        assert_close(actual, reference, 1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(4, 3)}, "weight must have shape"),
        ({"weight": torch.zeros(3, 1)}, "weight must have at least 2 taps"),
        ({"bias": torch.zeros(3, dtype=torch.int64)}, "bias must be float32"),
        ({"activation": "relu"}, "activation must be None or 'silu'"),
        ({"initial_state": torch.zeros(2, 2, 3)}, "initial_state must have 3 rows"),
        ({"initial_state": torch.zeros(1, 3, 3)}, "initial_state must hold one state for each of 2"),
        ({"cu_seqlens": torch.tensor([0, 5], dtype=torch.int32)}, "the batch size must be 1"),
    ],
)
def test_bad_arguments_are_named(change, message) -> None:
    arguments = {"x": torch.zeros(2, 5, 3), "weight": torch.zeros(3, 4)} | change
    with pytest.raises(ValueError, match=message) as raised:
        causal_conv1d(**arguments)
    assert "\n" not in str(raised.value)


def test_a_forced_backend_never_falls_back(device) -> None:
    with pytest.raises(BackendError, match="at most 8 taps"):
        causal_conv1d(torch.zeros(1, 2, 3, device=device), torch.zeros(3, 9, device=device), backend="triton")
