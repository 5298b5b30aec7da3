"""Claim: rms_norm's torch and triton paths equal the row-by-row oracle in float64, forward and every
gradient, for any width and row count, with and without weight and residual.

uv run pytest packages/tinykernels/tests/rms_norm
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinykernels import rms_norm
from tinykernels.dispatch import BackendError

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def gradients(
    inputs: dict[str, torch.Tensor | None], upstream: list[torch.Tensor], backend: str
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    leaves = {name: None if t is None else t.detach().requires_grad_() for name, t in inputs.items()}
    outputs = rms_norm(**leaves, eps=1e-5, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    wanted = {name: t for name, t in leaves.items() if t is not None}
    used = [(output, grad) for output, grad in zip(outputs, upstream, strict=False)]
    grads = torch.autograd.grad([o for o, _ in used], list(wanted.values()), [g.to(o) for o, g in used])
    return outputs, dict(zip(wanted, grads, strict=True))


def compare(
    assert_close: Callable[..., None],
    device: str,
    shape: tuple[int, ...],
    *,
    weighted: bool,
    residual: bool,
    dtype: torch.dtype,
    backend: str,
) -> None:
    generator = torch.Generator().manual_seed(sum(shape))

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    inputs = {
        "x": draw(*shape),
        "weight": draw(shape[-1]) if weighted else None,
        "residual": draw(*shape) if residual else None,
    }
    upstream = [draw(*shape), draw(*shape)]
    moved = {name: None if t is None else t.to(device) for name, t in inputs.items()}
    outputs, grads = gradients(moved, [g.to(device) for g in upstream], backend)
    exact = {name: None if t is None else t.double() for name, t in inputs.items()}
    expected, expected_grads = gradients(exact, [g.double() for g in upstream], "naive")
    for actual, reference in zip(outputs, expected, strict=True):
        assert_close(actual, reference, BOUNDS[dtype], "output")
        assert actual.dtype == dtype
    for name, reference in expected_grads.items():
        assert_close(grads[name], reference, 2 * BOUNDS[dtype], name)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("weighted", "residual"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("shape", [(1, 8), (3, 5, 33), (7,)])
def test_equals_the_oracle(assert_close, device, shape, weighted, residual, dtype, backend) -> None:
    compare(assert_close, device, shape, weighted=weighted, residual=residual, dtype=dtype, backend=backend)


def test_torch_path_is_float64_exact(assert_close) -> None:
    compare(assert_close, "cpu", (40, 48), weighted=True, residual=True, dtype=torch.float64, backend="torch")


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(rows=st.integers(1, 70), width=st.integers(1, 300), backend=st.sampled_from(["torch", "triton"]))
def test_any_shape(assert_close, device, rows, width, backend) -> None:
    compare(
        assert_close,
        device,
        (rows, width),
        weighted=True,
        residual=True,
        dtype=torch.float32,
        backend=backend,
    )


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_backward_with_many_row_blocks_a_program(assert_close, device, backend, monkeypatch) -> None:
    from tinykernels.rms_norm import triton_kernels

    monkeypatch.setattr(triton_kernels, "BACKWARD_PROGRAMS", 3)
    compare(assert_close, device, (117, 8), weighted=True, residual=False, dtype=torch.float32, backend=backend)


def test_matches_torch_and_strides_do_not_matter(device) -> None:
    wide = torch.randn(6, 4, 20, device=device).transpose(0, 1)[..., :13]
    weight = torch.randn(13, device=device)
    expected = torch.nn.functional.rms_norm(wide, (13,), weight, 1e-5)
    for backend in ("torch", "triton"):
        torch.testing.assert_close(rms_norm(wide, weight, backend=backend), expected)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_no_rows(device, backend) -> None:
    x = torch.zeros(0, 8, device=device, requires_grad=True)
    weight = torch.ones(8, device=device, requires_grad=True)
    y = rms_norm(x, weight, backend=backend)
    y.sum().backward()
    assert y.shape == (0, 8)
    assert weight.grad is not None
    assert (weight.grad == 0).all()


def test_only_the_residual_stream_used(assert_close, device) -> None:
    x = torch.randn(3, 8, device=device, requires_grad=True)
    residual = torch.randn(3, 8, device=device, requires_grad=True)
    for backend in ("torch", "triton"):
        _, h = rms_norm(x, None, residual, backend=backend)
        (grad,) = torch.autograd.grad(h.sum(), x)
        assert_close(grad, torch.ones(3, 8), 0.0)


def test_mixed_dtypes(device) -> None:
    x = torch.randn(4, 16, device=device, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(16, device=device, requires_grad=True)
    residual = torch.randn(4, 16, device=device, requires_grad=True)
    for backend in ("torch", "triton"):
        y, h = rms_norm(x, weight, residual, backend=backend)
        assert (y.dtype, h.dtype) == (torch.bfloat16, torch.float32)
        grads = torch.autograd.grad(y.float().sum() + h.sum(), [x, weight, residual])
        assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32, torch.float32]


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_opcheck(device, backend) -> None:
    x = torch.randn(3, 8, device=device, requires_grad=True)
    weight = torch.randn(8, device=device, requires_grad=True)
    residual = torch.randn(3, 8, device=device, requires_grad=True)
    for arguments in ((x, weight, residual), (x, None, None)):
        torch.library.opcheck(torch.ops.tinykernels.rms_norm.default, (*arguments, 1e-5, backend))


def test_fullgraph_compile(device) -> None:
    def block(x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        y, h = rms_norm(x * 2, weight, residual)
        return (y.sin() + h).sum()

    inputs = [
        torch.randn(5, 16, device=device),
        torch.randn(16, device=device),
        torch.randn(5, 16, device=device),
    ]
    inputs = [t.requires_grad_() for t in inputs]
    eager = torch.autograd.grad(block(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(block, fullgraph=True)(*inputs), inputs)
    for actual, expected in zip(compiled, eager, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(3, 0)}, "x must be a tensor"),
        ({"x": torch.zeros(3, 4), "weight": torch.zeros(5)}, r"weight must have shape \(4,\), got \(5,\)"),
        ({"x": torch.zeros(3, 4), "residual": torch.zeros(4, 3)}, "residual must have x's shape"),
        ({"x": torch.zeros(3, 4, dtype=torch.int64)}, "x must be float32"),
        ({"x": torch.zeros(3, 4), "eps": float("nan")}, "eps must be a finite number"),
        ({"x": torch.zeros(3, 4), "backend": "cuda"}, "backend must be one of auto, triton, torch, naive"),
    ],
)
def test_bad_arguments(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        rms_norm(**arguments)


def test_forced_backend_that_cannot_run_raises(device) -> None:
    with pytest.raises(BackendError, match="float64"):
        rms_norm(torch.zeros(2, 4, dtype=torch.float64, device=device), backend="triton")
