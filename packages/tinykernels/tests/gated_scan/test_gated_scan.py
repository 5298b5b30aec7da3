"""Claim: gated_scan's torch and triton paths equal the position-by-position oracle in float64, forward and every
gradient (forget, value, initial state; from h and from the final state), for any length, batch and packing,
empty documents included; documents and rows do not see each other; a scan in pieces is the whole scan.

uv run pytest packages/tinykernels/tests/gated_scan
"""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinykernels.dispatch import BackendError
from tinykernels.gated_scan import gated_scan

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}
CASES: dict[str, tuple[int, int, int, list[int] | None, bool]] = {  # batch, length, channels, boundaries, states
    "one token": (1, 1, 3, None, True),
    "odd lengths": (2, 37, 5, None, True),
    "no states": (3, 33, 34, None, False),
    "documents, some empty": (1, 40, 33, [0, 0, 10, 11, 20, 20, 40, 40], True),
    "documents that fold into rows": (1, 40, 4, [0, 7, 10, 20, 20, 30, 40], False),
}


def boundaries(values: list[int] | None, device: str) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.int32, device=device)


def draw(batch: int, length: int, dim: int, sequences: int, states: bool) -> dict[str, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(batch * length + dim)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "forget": torch.sigmoid(normal(batch, length, dim)),
        "value": normal(batch, length, dim),
        "initial_state": normal(sequences, dim) if states else None,
        "grad_hidden": normal(batch, length, dim),
        "grad_final": normal(sequences, dim),
    }


def outcome(
    drawn: dict[str, torch.Tensor | None], cu: list[int] | None, dtype: torch.dtype, device: str, backend: Any
) -> dict[str, torch.Tensor]:
    """h, the final state and every gradient."""
    leaves = {
        name: None if drawn[name] is None else drawn[name].to(device, dtype).requires_grad_()
        for name in ("forget", "value", "initial_state")
    }
    hidden, final = gated_scan(**leaves, cu_seqlens=boundaries(cu, device), backend=backend)
    loss = (hidden * drawn["grad_hidden"].to(hidden)).sum() + (final * drawn["grad_final"].to(final)).sum()
    wanted = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    grads = torch.autograd.grad(loss, list(wanted.values()))
    return {"hidden": hidden, "final": final} | dict(zip(wanted, grads, strict=True))


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_oracle(assert_close, device, case, backend) -> None:
    batch, length, dim, cu, states = CASES[case]
    drawn = draw(batch, length, dim, batch if cu is None else len(cu) - 1, states)
    expected = outcome(drawn, cu, torch.float64, "cpu", "naive")
    actual = outcome(drawn, cu, torch.float32, device, backend)
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.float32], name)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_bfloat16(assert_close, device, backend) -> None:
    drawn = draw(2, 35, 6, 2, True)
    drawn = {name: None if t is None else t.bfloat16().double() for name, t in drawn.items()}
    expected = outcome(drawn, None, torch.float64, "cpu", "naive")
    actual = outcome(drawn, None, torch.bfloat16, device, backend)
    assert actual["hidden"].dtype == torch.bfloat16
    assert actual["final"].dtype == torch.float32
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.bfloat16], name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    dim=st.integers(1, 5),
    states=st.booleans(),
)
def test_torch_path_is_float64_exact_on_any_packing(assert_close, lengths, dim, states) -> None:
    cu = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    drawn = draw(1, cu[-1], dim, len(lengths), states)
    expected = outcome(drawn, cu, torch.float64, "cpu", "naive")
    actual = outcome(drawn, cu, torch.float64, "cpu", "torch")
    for name, reference in expected.items():
        assert_close(actual[name], reference, BOUNDS[torch.float64], name)


def test_the_oracle_is_the_closed_form(assert_close) -> None:
    forget, value = torch.rand(1, 6, 2, dtype=torch.float64), torch.randn(1, 6, 2, dtype=torch.float64)
    hidden, final = gated_scan(forget, value, backend="naive")
    for t in range(6):
        expected = sum(value[0, s] * forget[0, s + 1 : t + 1].prod(0) for s in range(t + 1))
        assert_close(hidden[0, t], expected, 1e-12)
    assert torch.equal(final, hidden[:, -1])


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_pieces_are_the_whole(assert_close, device, backend) -> None:
    drawn = draw(2, 21, 4, 2, False)
    forget, value = (drawn[name].to(device, torch.float32) for name in ("forget", "value"))
    whole, final = gated_scan(forget, value, backend=backend)
    state, outputs = None, []
    for begin, end in ((0, 1), (1, 2), (2, 19), (19, 21)):
        part, state = gated_scan(forget[:, begin:end], value[:, begin:end], state, backend=backend)
        outputs.append(part)
    assert_close(torch.cat(outputs, 1), whole, 1e-6)
    assert_close(state, final, 1e-6)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_documents_are_isolated_and_an_empty_one_keeps_its_state(device, backend) -> None:
    cu = boundaries([0, 8, 8, 20], device)
    drawn = draw(1, 20, 3, 3, True)
    forget, value, state = (drawn[name].to(device, torch.float32) for name in ("forget", "value", "initial_state"))
    before, final = gated_scan(forget, value, state, cu, backend=backend)
    value[:, :8] = 1e6
    after, _ = gated_scan(forget, value, state, cu, backend=backend)
    assert torch.equal(before[:, 8:], after[:, 8:])
    assert torch.equal(final[1], state[1])


def test_second_use_of_one_result_only(device) -> None:
    """Nobody used h, or nobody used the final state: the missing gradient counts as zero."""
    forget = torch.full((1, 3, 2), 0.5, device=device, requires_grad=True)
    value = torch.ones(1, 3, 2, device=device, requires_grad=True)
    for backend in ("torch", "triton"):
        hidden, final = gated_scan(forget, value, backend=backend)
        (from_final,) = torch.autograd.grad(final.sum(), [value], retain_graph=True)
        assert from_final[0, :, 0].tolist() == [0.25, 0.5, 1.0]
        (from_hidden,) = torch.autograd.grad(hidden.sum(), [value])
        assert from_hidden[0, :, 0].tolist() == [1.75, 1.5, 1.0]


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_operator_is_registered_properly(device, backend) -> None:
    forget = torch.rand(1, 9, 4, device=device, requires_grad=True)
    value = torch.randn(1, 9, 4, device=device, requires_grad=True)
    state = torch.randn(2, 4, device=device, requires_grad=True)
    cu = boundaries([0, 4, 9], device)
    torch.library.opcheck(torch.ops.tinykernels.gated_scan.default, (forget, value, state, cu, backend))


def test_compiles_as_one_graph(assert_close) -> None:
    forget = torch.rand(2, 9, 4, requires_grad=True)
    value = torch.randn(2, 9, 4, requires_grad=True)

    def loss(forget: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        hidden, final = gated_scan(torch.sigmoid(forget), value)
        return hidden.square().sum() + final.sum()

    expected = torch.autograd.grad(loss(forget, value), [forget, value])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for actual, reference in zip(torch.autograd.grad(compiled(forget, value), [forget, value]), expected, strict=True):
        assert_close(actual, reference, 1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": torch.zeros(2, 5, 4)}, "value must have shape"),
        ({"value": torch.zeros(2, 5, 3, dtype=torch.float16)}, "value must have forget's dtype"),
        ({"forget": torch.zeros(2, 5, 3, dtype=torch.int32)}, "forget must be float32"),
        ({"initial_state": torch.zeros(3, 3)}, "initial_state must hold one state for each of 2"),
        ({"cu_seqlens": torch.tensor([0, 5], dtype=torch.int32)}, "the batch size must be 1"),
        ({"backend": "cuda"}, "backend must be one of"),
        ({"forget": torch.zeros(2, 0, 3), "value": torch.zeros(2, 0, 3)}, "at least one sequence"),
    ],
)
def test_bad_arguments_are_named(change, message) -> None:
    arguments = {"forget": torch.zeros(2, 5, 3), "value": torch.zeros(2, 5, 3)} | change
    with pytest.raises(ValueError, match=message) as raised:
        gated_scan(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("values", [[0, 3, 2, 5], [1, 5], [0, 4]])
def test_bad_boundaries_are_named(values) -> None:
    x = torch.zeros(1, 5, 3)
    with pytest.raises(ValueError, match="cu_seqlens must"):
        gated_scan(x, x, cu_seqlens=boundaries(values, "cpu"))


def test_a_forced_backend_never_falls_back(device) -> None:
    x = torch.zeros(1, 5, 3, dtype=torch.float64, device=device)
    with pytest.raises(BackendError, match="float64"):
        gated_scan(x, x, backend="triton")
