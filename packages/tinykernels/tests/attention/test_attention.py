"""Claim: attention's torch and triton paths equal the query-by-query oracle in float64, forward and every
gradient: grouped heads, windows, packed and empty documents, soft caps, a cache before the queries, any
head size and stride.

uv run pytest packages/tinykernels/tests/attention
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinykernels import attention
from tinykernels.attention import cpu, tiles
from tinykernels.dispatch import BackendError

BACKENDS = ["torch", "triton"]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks along both axes at lengths that the interpreter can afford."""
    small = (tiles.Tile(16, 16, 4, 1),)
    for name in ("FORWARD", "QUERY_GRADIENT", "KEY_GRADIENT", "FLOAT32_FORWARD", "FLOAT32_GRADIENT"):
        monkeypatch.setattr(tiles, name, dict.fromkeys((64, 128, 256, 512), small))


def compare(
    assert_close: Callable[..., None],
    device: str,
    backend: str,
    *,
    queries: int = 21,
    keys: int | None = None,
    batch: int = 1,
    heads: tuple[int, int] = (1, 1),
    size: int = 8,
    dtype: torch.dtype = torch.float32,
    documents: list[int] | None = None,
    **options: float | int | None,
) -> None:
    """Forward and gradients against the oracle; bf16 at most twice PyTorch's own error there, plus a floor."""
    keys = queries if keys is None else keys
    generator = torch.Generator().manual_seed(queries * 31 + size)

    def draw(length: int, count: int) -> torch.Tensor:
        return torch.randn(batch, length, count, size, generator=generator, dtype=torch.float64).to(dtype)

    inputs = [draw(queries, heads[0]), draw(keys, heads[1]), draw(keys, heads[1])]
    upstream = draw(queries, heads[0])
    boundaries = None if documents is None else torch.tensor(documents, dtype=torch.int32)

    def run(chosen: str, where: str, kind: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.to(where, kind).requires_grad_() for t in inputs]
        cu = None if boundaries is None else boundaries.to(where)
        out = attention(*leaves, cu_seqlens=cu, backend=chosen, **options)
        return [out, *torch.autograd.grad(out, leaves, upstream.to(where, kind))]

    expected = run("naive", "cpu", torch.float64)
    bound = 5e-6 if dtype == torch.float32 else 2.5e-2
    for name, actual, reference in zip(("out", "q", "k", "v"), run(backend, device, dtype), expected, strict=True):
        assert actual.dtype == dtype
        assert actual.is_contiguous() or name != "out"
        assert_close(actual, reference, bound, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(1, 1), (4, 2)])
def test_grouped_heads(assert_close, device, backend, dtype, heads) -> None:
    compare(assert_close, device, backend, queries=18, heads=heads, dtype=dtype, batch=2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queries", [1, 16, 33])
def test_lengths(assert_close, device, backend, queries) -> None:
    compare(assert_close, device, backend, queries=queries)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("queries", "keys"), [(1, 20), (3, 19), (17, 40)])
@pytest.mark.parametrize("window", [None, 5, 18])
def test_bottom_right_alignment_with_a_cache(assert_close, device, backend, queries, keys, window) -> None:
    compare(assert_close, device, backend, queries=queries, keys=keys, window=window)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [2, 7, 16])
def test_window(assert_close, device, backend, window) -> None:
    compare(assert_close, device, backend, queries=34, window=window)


@pytest.mark.parametrize("backend", BACKENDS)
def test_window_of_one_copies_the_values(assert_close, device, backend) -> None:
    q, k, v = (torch.randn(2, 20, 1, 8, device=device, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, window=1, backend=backend)
    assert_close(out, v, 1e-6)
    grads = torch.autograd.grad(out.sum(), [q, k, v])
    assert max(grad.abs().max().item() for grad in grads[:2]) < 1e-5
    assert_close(grads[2], torch.ones(2, 20, 1, 8), 1e-6)


def test_torch_window_over_several_query_blocks(assert_close, monkeypatch) -> None:
    monkeypatch.setattr(cpu, "QUERY_BLOCK", 8)
    compare(assert_close, "cpu", "torch", queries=37, window=5, softcap=4.0)
    compare(assert_close, "cpu", "torch", queries=5, keys=37, window=6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("documents", [[0, 35], [0, 1, 2, 20, 35], [0, 0, 16, 16, 33, 35, 35, 35]])
@pytest.mark.parametrize("window", [None, 6])
def test_documents(assert_close, device, backend, documents, window) -> None:
    compare(assert_close, device, backend, queries=35, documents=documents, window=window)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"window": 9}, {"documents": [0, 3, 3, 33]}])
def test_softcap(assert_close, device, backend, options) -> None:
    compare(assert_close, device, backend, queries=33, softcap=2.0, scale=0.7, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [8, 12, 18, 32, 36, 48, 56, 64, 128])
def test_every_head_size_of_the_recipes(assert_close, device, backend, size) -> None:
    compare(assert_close, device, backend, queries=18, size=size)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_error_is_at_most_twice_pytorchs(device, backend) -> None:
    generator = torch.Generator().manual_seed(5)
    inputs = [torch.randn(1, 33, 2, 16, generator=generator).to(device, torch.bfloat16) for _ in range(4)]

    def run(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in inputs[:3]]
        out = function(*leaves)
        return [t.double() for t in (out, *torch.autograd.grad(out, leaves, inputs[3].to(dtype)))]

    def open_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        later = torch.ones(33, 33, dtype=torch.bool, device=device).triu(1)
        score = torch.einsum("bthd,bshd->bhts", q, k) * 0.25
        return torch.einsum("bhts,bshd->bthd", score.masked_fill(later, float("-inf")).softmax(-1), v)

    exact = run(open_attention, torch.float64)
    theirs = run(open_attention, torch.bfloat16)
    ours = run(lambda q, k, v: attention(q, k, v, backend=backend), torch.bfloat16)
    for actual, other, expected in zip(ours, theirs, exact, strict=True):
        floor = 4e-3 * expected.abs().max()
        assert (actual - expected).abs().max() <= 2 * (other - expected).abs().max() + floor


@pytest.mark.parametrize("size", [16, 64, 128])
def test_shipped_tiles(assert_close, device, monkeypatch, size) -> None:
    monkeypatch.undo()
    compare(assert_close, device, "triton", queries=70, size=size, window=50)


def test_what_no_kernel_can_takes_the_torch_path(device) -> None:
    q = torch.randn(1, 4, 1, 160, device=device)
    with pytest.raises(BackendError, match="head size 160"):
        attention(q, q, q, backend="triton")
    double = Q.to(device, torch.float64)
    with pytest.raises(BackendError, match="float64"):
        attention(double, double, double, backend="triton")
    assert attention(q, q, q, backend="torch").shape == q.shape


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), backend=st.sampled_from(BACKENDS))
def test_any_documents(assert_close, device, data, backend) -> None:
    lengths = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(sum))
    documents = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    window = data.draw(st.none() | st.integers(1, 40))
    compare(assert_close, device, backend, queries=sum(lengths), documents=documents, window=window)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_of_one_projection(assert_close, device, backend) -> None:
    fused = torch.randn(2, 19, 4 * 8, device=device)
    q, k, v = fused.unflatten(-1, (4, 8)).split([2, 1, 1], dim=2)
    expected = attention(q.contiguous(), k.contiguous(), v.contiguous(), backend="naive")
    assert_close(attention(q, k, v, backend=backend), expected, 5e-6)
    turned = [t.transpose(1, 3).contiguous().transpose(1, 3) for t in (q, k, v)]
    assert_close(attention(*turned, backend=backend), expected, 5e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_document_equals_itself_alone(assert_close, device, backend) -> None:
    q, k, v = (torch.randn(1, 30, 2, 8, device=device) for _ in range(3))
    cu = torch.tensor([0, 11, 30], dtype=torch.int32, device=device)
    packed = attention(q, k, v, cu_seqlens=cu, backend=backend)
    alone = attention(q[:, 11:], k[:, 11:], v[:, 11:], backend=backend)
    assert_close(packed[:, 11:], alone, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens(device, backend) -> None:
    q = torch.zeros(2, 0, 2, 8, device=device, requires_grad=True)
    k = torch.ones(2, 3, 1, 8, device=device, requires_grad=True)
    out = attention(q, k, k, backend=backend)
    assert out.shape == q.shape


def test_opcheck(device) -> None:
    q = torch.randn(1, 5, 2, 8, device=device, requires_grad=True)
    k = torch.randn(1, 5, 1, 8, device=device, requires_grad=True)
    cu = torch.tensor([0, 2, 5], dtype=torch.int32, device=device)
    arguments = (q, k, k.detach(), cu, 0.5, 3, 2.0)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.tinykernels.attention.default, arguments, test_utils=checks)


def compiled_equals_eager(device: str, backend: str) -> None:
    def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu: torch.Tensor) -> torch.Tensor:
        return attention(q * 2, k, v, cu_seqlens=cu, window=7, backend=backend).sin().sum()

    inputs = [torch.randn(1, 20, heads, 8, device=device, requires_grad=True) for heads in (2, 1, 1)]
    cu = torch.tensor([0, 4, 4, 20], dtype=torch.int32, device=device)
    eager = torch.autograd.grad(block(*inputs, cu), inputs)
    compiled = torch.autograd.grad(torch.compile(block, fullgraph=True)(*inputs, cu), inputs)
    for actual, expected in zip(compiled, eager, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_fullgraph_compile(device, backend) -> None:
    compiled_equals_eager(device, backend)


def test_autocast_casts_the_products(device) -> None:
    q = torch.randn(1, 4, 2, 8, device=device)
    with torch.autocast(device, torch.bfloat16):
        assert attention(q, q.to(torch.bfloat16), q).dtype == torch.bfloat16


Q = torch.zeros(1, 4, 2, 8)
CU = torch.tensor([0, 3, 2, 4], dtype=torch.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": Q[0]}, r"q must have shape \(B T H D\), got \(4, 2, 8\)"),
        ({"k": Q[..., :4], "v": Q[..., :4]}, "k must have shape .* with D = 8"),
        ({"v": Q[:, :2]}, "v must have shape .* with S = 4"),
        ({"k": Q[:, :3], "v": Q[:, :3]}, "k must have at least q's length 4, got 3"),
        ({"q": torch.zeros(1, 4, 3, 8)}, "k's 2 heads must divide q's 3 heads"),
        ({"k": Q.double()}, "k must have q's dtype float32, got float64"),
        ({"window": 0}, "window must be at least 1"),
        ({"softcap": -1.0}, "softcap must be a finite number above 0"),
        ({"cu_seqlens": CU}, "cu_seqlens must never decrease, got 3 before 2 at index 2"),
        ({"cu_seqlens": CU[:2]}, "cu_seqlens must run from 0 to the length 4, got 0 to 3"),
        ({"cu_seqlens": CU.long()}, "cu_seqlens must be int32, got int64"),
    ],
)
def test_bad_arguments(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        attention(**({"q": Q, "k": Q, "v": Q} | change))
