"""Claim: selective_scan's torch and triton paths equal the position-by-position oracle in float64, forward and every
gradient (eight arguments, from y and from the final state), for any length, state size and packing, empty
documents included; documents do not see each other; a scan in pieces, or step by step, is the whole scan; the
triton backward gives the same bits every time.

uv run pytest packages/tinykernels/tests/selective_scan
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinykernels.dispatch import BackendError
from tinykernels.selective_scan import selective_scan, selective_scan_step

BOUNDS = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 3e-2}
# batch, length, channels, states, boundaries, which optional arguments
CASES: dict[str, tuple[int, int, int, int, list[int] | None, str]] = {
    "one token": (1, 1, 3, 16, None, "initial_state"),
    "plain": (2, 9, 5, 4, None, ""),
    "everything": (2, 11, 9, 3, None, "D z delta_bias initial_state"),
    "documents, some empty": (1, 20, 9, 5, [0, 0, 10, 11, 17, 17, 20], "D z initial_state"),
    "documents that fold into rows": (1, 18, 4, 16, [0, 4, 9, 9, 18], "delta_bias"),
}
FLOATING = ("x", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def boundaries(values: list[int] | None, device: str) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.int32, device=device)


def draw(
    batch: int, length: int, dim: int, states: int, sequences: int, optional: str
) -> dict[str, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(batch * length + dim * states)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    drawn: dict[str, torch.Tensor | None] = {
        "x": normal(batch, length, dim),
        "delta": normal(batch, length, dim) - 1,
        "A": -torch.rand(dim, states, generator=generator, dtype=torch.float64) * states - 0.1,
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(dim),
        "z": normal(batch, length, dim),
        "delta_bias": normal(dim),
        "initial_state": normal(sequences, dim, states),
        "grad_y": normal(batch, length, dim),
        "grad_final": normal(sequences, dim, states),
    }
    for name in ("D", "z", "delta_bias", "initial_state"):
        if name not in optional.split():
            drawn[name] = None
    return drawn


def outcome(
    drawn: dict[str, torch.Tensor | None], cu: list[int] | None, dtype: torch.dtype, device: str, backend: Any
) -> dict[str, torch.Tensor]:
    """y, the final state and every gradient. A, D, delta_bias and states stay in the accumulation's dtype."""
    wide = torch.promote_types(dtype, torch.float32)
    leaves = {
        name: drawn[name].to(device, dtype if name in ("x", "delta", "B", "C", "z") else wide).requires_grad_()
        for name in FLOATING
        if drawn[name] is not None
    }
    y, final = selective_scan(**leaves, delta_softplus=True, cu_seqlens=boundaries(cu, device), backend=backend)
    loss = (y * drawn["grad_y"].to(y)).sum() + (final * drawn["grad_final"].to(final)).sum()
    return {"y": y, "final": final} | dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_oracle(assert_close, device, case, backend) -> None:
    batch, length, dim, states, cu, optional = CASES[case]
    drawn = draw(batch, length, dim, states, batch if cu is None else len(cu) - 1, optional)
    expected = outcome(drawn, cu, torch.float64, "cpu", "naive")
    actual = outcome(drawn, cu, torch.float32, device, backend)
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.float32], name)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_bfloat16(assert_close, device, backend) -> None:
    drawn = draw(1, 10, 6, 4, 1, "D z")
    for name in ("x", "delta", "B", "C", "z", "grad_y"):
        drawn[name] = drawn[name].bfloat16().double()
    expected = outcome(drawn, None, torch.float64, "cpu", "naive")
    actual = outcome(drawn, None, torch.bfloat16, device, backend)
    assert actual["y"].dtype == torch.bfloat16
    assert actual["final"].dtype == torch.float32
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.bfloat16], name)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 24), min_size=1, max_size=5).filter(any),
    dim=st.integers(1, 4),
    states=st.integers(1, 5),
    optional=st.sampled_from(["", "D", "z initial_state", "D z delta_bias initial_state"]),
)
def test_torch_path_is_float64_exact_on_any_packing(assert_close, lengths, dim, states, optional) -> None:
    cu = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    drawn = draw(1, cu[-1], dim, states, len(lengths), optional)
    expected = outcome(drawn, cu, torch.float64, "cpu", "naive")
    actual = outcome(drawn, cu, torch.float64, "cpu", "torch")
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.float64], name)


def test_the_oracle_is_the_closed_form() -> None:
    """One channel, one state, two steps, by hand."""
    one = torch.ones(1, 2, 1, dtype=torch.float64)
    y, final = selective_scan(
        2 * one, 0.5 * one, -torch.ones(1, 1, dtype=torch.float64), 3 * one, 5 * one, backend="naive"
    )
    first = 0.5 * 2 * 3
    second = math.exp(-0.5) * first + 0.5 * 2 * 3
    assert y.flatten().tolist() == pytest.approx([5 * first, 5 * second], rel=1e-12)
    assert final.item() == pytest.approx(second, rel=1e-12)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_pieces_and_steps_are_the_whole(assert_close, device, backend) -> None:
    drawn = draw(2, 13, 5, 4, 2, "D z delta_bias")
    moved = {name: drawn[name].to(device, torch.float32) for name in FLOATING if drawn[name] is not None}
    whole, final = selective_scan(**moved, delta_softplus=True, backend=backend)

    def piece(begin: int, end: int) -> dict[str, torch.Tensor]:
        timed = ("x", "delta", "B", "C", "z")
        return {name: t[:, begin:end] if name in timed else t for name, t in moved.items()}

    first, state = selective_scan(**piece(0, 9), delta_softplus=True, backend=backend)
    second, state = selective_scan(**piece(9, 11), delta_softplus=True, initial_state=state, backend=backend)
    outputs = [first, second]
    for t in (11, 12):
        token = {name: v[:, 0] if v.dim() == 3 else v for name, v in piece(t, t + 1).items()}
        y, state = selective_scan_step(**token, state=state, delta_softplus=True, backend=backend)
        outputs.append(y[:, None])
    assert_close(torch.cat(outputs, 1), whole, 1e-5)
    assert_close(state, final, 1e-5)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_documents_are_isolated_and_an_empty_one_keeps_its_state(device, backend) -> None:
    drawn = draw(1, 14, 3, 4, 3, "D z initial_state")
    moved = {name: drawn[name].to(device, torch.float32) for name in FLOATING if drawn[name] is not None}
    cu = boundaries([0, 5, 5, 14], device)
    before, final = selective_scan(**moved, delta_softplus=True, cu_seqlens=cu, backend=backend)
    moved["x"][:, :5] = 1e6
    after, _ = selective_scan(**moved, delta_softplus=True, cu_seqlens=cu, backend=backend)
    assert torch.equal(before[:, 5:], after[:, 5:])
    assert torch.equal(final[1], moved["initial_state"][1])


def test_gradients_are_the_same_bits_every_time(device) -> None:
    drawn = draw(1, 10, 20, 4, 2, "D z initial_state")
    first, second = (outcome(drawn, [0, 4, 10], torch.float32, device, "triton") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_autocast_changes_no_bit(device) -> None:
    """The scan's own products are float32, whatever autocast would make of products."""
    drawn = draw(2, 33, 16, 8, 2, "D z initial_state")
    plain = outcome(drawn, None, torch.float32, device, "torch")
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        under = outcome(drawn, None, torch.float32, device, "torch")
    for name, value in plain.items():
        assert torch.equal(value, under[name]), name


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_operator_is_registered_properly(device, backend) -> None:
    drawn = draw(1, 9, 4, 3, 2, "D z initial_state")
    tensors = [
        None if drawn[name] is None else drawn[name].to(device, torch.float32).requires_grad_()
        for name in FLOATING
        if name != "delta_bias"
    ]
    tensors[1] = torch.nn.functional.softplus(tensors[1].detach()).requires_grad_()
    arguments = (*tensors, boundaries([0, 4, 9], device), True, backend)
    torch.library.opcheck(torch.ops.tinykernels.selective_scan.default, arguments)


@pytest.mark.slow
def test_compiles_as_one_graph(assert_close) -> None:
    drawn = draw(2, 9, 4, 3, 2, "D z")
    leaves = [drawn[name].float().requires_grad_() for name in ("x", "delta", "A", "B", "C", "D", "z")]

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        y, final = selective_scan(*leaves, delta_softplus=True)
        return y.square().sum() + final.sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, fullgraph=True)
    for actual, reference in zip(torch.autograd.grad(compiled(*leaves), leaves), expected, strict=True):
        assert_close(actual, reference, 1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.zeros(4, 2)}, "A must have shape"),
        ({"C": torch.zeros(2, 5, 7)}, "C must have shape"),
        ({"z": torch.zeros(2, 5)}, "z must have shape"),
        ({"D": torch.zeros(3, dtype=torch.int64)}, "D must be float32"),
        ({"initial_state": torch.zeros(1, 3, 2)}, "initial_state must hold one state for each of 2"),
        ({"cu_seqlens": torch.tensor([0, 5], dtype=torch.int32)}, "the batch size must be 1"),
        ({"backend": "cuda"}, "backend must be one of"),
    ],
)
def test_bad_arguments_are_named(change, message) -> None:
    x, B = torch.zeros(2, 5, 3), torch.zeros(2, 5, 2)
    arguments = {"x": x, "delta": x, "A": torch.zeros(3, 2), "B": B, "C": B} | change
    with pytest.raises(ValueError, match=message) as raised:
        selective_scan(**arguments)
    assert "\n" not in str(raised.value)


def test_a_forced_backend_never_falls_back(device) -> None:
    x, B = torch.zeros(1, 2, 3, device=device), torch.zeros(1, 2, 65, device=device)
    with pytest.raises(BackendError, match="at most 64 states"):
        selective_scan(x, x, torch.zeros(3, 65, device=device), B, B, backend="triton")
