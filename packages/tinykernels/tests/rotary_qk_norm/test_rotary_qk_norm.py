"""Claim: rotary_qk_norm's torch and triton paths equal the token-by-token complex rotation in float64,
outputs and every gradient, with and without norm and weights; a rotation keeps lengths and depends on
relative position only.

uv run pytest packages/tinykernels/tests/rotary_qk_norm
"""

import pytest
import torch

from tinykernels import rotary_qk_norm

BACKENDS = ["torch", "triton"]


def angles(length: int, size: int, batch: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    position = torch.arange(length, dtype=torch.float64)
    if batch is not None:
        position = position + 3 * torch.arange(batch)[:, None]
    angle = position[..., None] * 10000.0 ** (-torch.arange(size // 2, dtype=torch.float64) * 2 / size)
    return angle.cos(), angle.sin()


def run(
    inputs: list[torch.Tensor | None],
    table: tuple[torch.Tensor, torch.Tensor],
    upstream: list[torch.Tensor],
    backend: str,
    eps: float | None,
) -> list[torch.Tensor]:
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in inputs]
    q, k, q_weight, k_weight = leaves
    outputs = rotary_qk_norm(q, k, *table, q_weight, k_weight, eps=eps, backend=backend)
    wanted = [t for t in leaves if t is not None]
    return [*outputs, *torch.autograd.grad(outputs, wanted, upstream)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("weights", "eps"), [("qk", 1e-5), ("q", 1e-5), ("", 1e-5), ("", None), ("k", None)])
@pytest.mark.parametrize(("batch", "length", "size"), [(2, 5, 12), (1, 1, 2)])
def test_equals_the_oracle(assert_close, device, backend, dtype, weights, eps, batch, length, size) -> None:
    generator = torch.Generator().manual_seed(size)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = [draw(batch, length, 3, size), draw(batch, length, 1, size)]
    upstream = [draw(*t.shape) for t in inputs]
    inputs += [draw(size) if name in weights else None for name in "qk"]
    table = angles(length, size, None if size == 2 else batch)
    exact = [None if t is None else t.double() for t in inputs]
    expected = run(exact, table, [t.double() for t in upstream], "naive", eps)
    moved = [None if t is None else t.to(device) for t in inputs]
    rounded = tuple(t.float().to(device) for t in table)
    actual = run(moved, rounded, [t.to(device) for t in upstream], backend, eps)
    for left, right in zip(actual, expected, strict=True):
        assert left.dtype == dtype
        assert_close(left, right, 3e-6 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_tokens_a_program_and_slices_of_one_projection(assert_close, device, backend, monkeypatch) -> None:
    from tinykernels.rotary_qk_norm import triton_kernels

    monkeypatch.setattr(triton_kernels, "BACKWARD_PROGRAMS", 2)
    monkeypatch.setattr(triton_kernels, "TILE_ELEMENTS", 16)
    fused = torch.randn(2, 13, 4 * 6, device=device)
    q, k, _ = fused.unflatten(-1, (4, 6)).split([2, 1, 1], dim=2)
    weight = torch.randn(6, device=device)
    table = tuple(t.float().to(device) for t in angles(13, 6))
    upstream = [torch.randn(t.shape, device=device) for t in (q, k)]
    actual = run([q, k, weight, weight], table, upstream, backend, 1e-5)
    expected = run([q, k, weight, weight], table, upstream, "naive", 1e-5)
    for left, right in zip(actual, expected, strict=True):
        assert_close(left, right, 5e-6)
    turned = rotary_qk_norm(q, k, *table, backend=backend)
    assert_close(turned[0], rotary_qk_norm(q, k, *table, backend="naive")[0], 3e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_depend_on_relative_position(assert_close, device, backend) -> None:
    x = torch.randn(1, 1, 1, 8, device=device).expand(1, 9, 1, 8)
    table = tuple(t.float().to(device) for t in angles(9, 8))
    q, k = rotary_qk_norm(x, x, *table, eps=None, backend=backend)
    assert_close(q.norm(dim=-1), x.norm(dim=-1), 1e-6)
    scores = q[0, :, 0] @ k[0, :, 0].T
    assert_close(scores[5, 2], scores[8, 5], 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_output_used_and_no_tokens(device, backend) -> None:
    q = torch.randn(1, 3, 1, 4, device=device, requires_grad=True)
    table = tuple(t.float().to(device) for t in angles(3, 4))
    weight = torch.ones(4, device=device, requires_grad=True)
    rotary_qk_norm(q, q * 2, *table, weight, weight, backend=backend)[1].sum().backward()
    assert q.grad is not None
    empty = torch.zeros(2, 0, 1, 4, device=device, requires_grad=True)
    none = tuple(t[:0] for t in table)
    q_out, _ = rotary_qk_norm(empty, empty, *none, weight, weight, backend=backend)
    q_out.sum().backward()
    assert q_out.shape == empty.shape


def test_opcheck(device) -> None:
    q = torch.randn(1, 3, 2, 4, device=device, requires_grad=True)
    k = torch.randn(1, 3, 1, 4, device=device, requires_grad=True)
    weight = torch.ones(4, device=device, requires_grad=True)
    table = tuple(t.float().to(device)[None] for t in angles(3, 4))
    arguments = (q, k, *table, weight, None, 1e-5)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.tinykernels.rotary_qk_norm.default, arguments, test_utils=checks)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_fullgraph_compile(assert_close, device, backend) -> None:
    q = torch.randn(1, 3, 2, 4, device=device, requires_grad=True)
    weight = torch.ones(4, device=device, requires_grad=True)
    table = tuple(t.float().to(device) for t in angles(3, 4))

    def step(q: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        turned = rotary_qk_norm(q * 2, q[:, :, :1], *table, weight, weight, backend=backend)
        return (turned[0] * turned[1].sin()).sum()

    expected = torch.autograd.grad(step(q, weight), [q, weight])
    actual = torch.autograd.grad(torch.compile(step, fullgraph=True)(q, weight), [q, weight])
    for left, right in zip(actual, expected, strict=True):
        assert_close(left, right, 2e-6)


Q, COS = torch.zeros(2, 3, 2, 4), torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": Q[:, :2]}, "k must have shape .* with T = 3"),
        ({"q": Q[..., :3], "k": Q[..., :3]}, "q must have an even head size, got 3"),
        ({"cos": COS[:2]}, r"cos must have shape \(3, 2\) or \(2, 3, 2\)"),
        ({"sin": COS.expand(2, 3, 2)}, "sin must have shape .* the same for both"),
        ({"q_weight": torch.ones(3)}, "q_weight must have shape"),
        ({"k": Q.double()}, "k must have q's dtype float32"),
        ({"eps": -1.0}, "eps must be a finite number above 0"),
    ],
)
def test_bad_arguments(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        rotary_qk_norm(**({"q": Q, "k": Q, "cos": COS, "sin": COS} | change))
