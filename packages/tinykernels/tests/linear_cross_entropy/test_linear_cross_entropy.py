"""Claim: linear_cross_entropy's torch and triton paths equal the token-by-token oracle in float64 and
PyTorch's own cross entropy, loss and both gradients: z-loss, soft cap, ignored targets, any vocabulary, any
chunking.

uv run pytest packages/tinykernels/tests/linear_cross_entropy
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinykernels import linear_cross_entropy
from tinykernels.linear_cross_entropy import chunks

BACKENDS = ["torch", "triton"]
OPTIONS = [{}, {"z_loss": 1e-2, "reduction": "sum"}, {"softcap": 2.0}, {"z_loss": 1e-2, "softcap": 3.0}]


def draw(tokens: int, width: int, vocabulary: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(tokens + vocabulary)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64).div(width**0.5).to(dtype)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    targets[::3] = -100
    return hidden, weight, targets


def run(inputs: tuple[torch.Tensor, ...], backend: str, where: str, **options: float) -> list[torch.Tensor]:
    hidden, weight = (t.to(where).clone().requires_grad_() for t in inputs[:2])
    loss = linear_cross_entropy(hidden, weight, inputs[2].to(where), backend=backend, **options)
    return [loss, *torch.autograd.grad(loss * 3, [hidden, weight])]


def compare(
    assert_close: Callable[..., None],
    device: str,
    backend: str,
    shape: tuple[int, int, int],
    dtype: torch.dtype = torch.float32,
    **options: float,
) -> None:
    inputs = draw(*shape, dtype)
    exact = (inputs[0].double(), inputs[1].double(), inputs[2])
    expected = run(exact, "naive", "cpu", **options)
    bound = 5e-6 if dtype == torch.float32 else 2e-2
    for name, actual, reference in zip(
        ("loss", "hidden", "weight"), run(inputs, backend, device, **options), expected, strict=True
    ):
        assert actual.dtype == (torch.float32 if name == "loss" else dtype)
        assert_close(actual, reference, bound, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_oracle(assert_close, device, backend, dtype, options) -> None:
    compare(assert_close, device, backend, (17, 8, 37), dtype, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 4, 1), (2, 1, 5), (5, 3, 4500)])
def test_odd_shapes(assert_close, device, backend, shape) -> None:
    compare(assert_close, device, backend, shape)


@pytest.mark.parametrize("backend", BACKENDS)
def test_chunks_do_not_matter(assert_close, device, backend, monkeypatch) -> None:
    monkeypatch.setattr(chunks, "CPU_CHUNK_BYTES", 16 * 37 * 4)
    monkeypatch.setattr(chunks, "GPU_CHUNK_BYTES", 16 * 37 * 4)
    assert chunks.rows_of_chunk(50, 37, 4, torch.device(device)) == 16
    compare(assert_close, device, backend, (50, 8, 37), z_loss=1e-3)


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    tokens=st.integers(2, 12),
    width=st.integers(1, 9),
    vocabulary=st.integers(1, 70),
    backend=st.sampled_from(BACKENDS),
)
def test_any_shape(assert_close, device, tokens, width, vocabulary, backend) -> None:
    compare(assert_close, device, backend, (tokens, width, vocabulary), z_loss=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_pytorch(assert_close, device, backend) -> None:
    inputs = [t.to(device) for t in draw(12, 8, 30, torch.float32)]
    leaves = [t.clone().requires_grad_() for t in inputs[:2]]
    expected = F.cross_entropy(F.linear(*leaves), inputs[2])
    grads = torch.autograd.grad(expected * 3, leaves)
    for actual, reference in zip(run(tuple(inputs), backend, device), (expected, *grads), strict=True):
        assert_close(actual, reference, 2e-6)


@pytest.mark.parametrize("backend", [*BACKENDS, "naive"])
@pytest.mark.parametrize("tokens", [0, 3])
def test_nothing_to_learn_is_zero_with_zero_gradients(device, backend, tokens) -> None:
    inputs = (torch.randn(tokens, 4), torch.randn(9, 4), torch.full((tokens,), -100))
    assert all(not value.any() for value in run(inputs, backend, device, z_loss=0.1))


def test_a_sure_model_keeps_its_small_gradient(assert_close, device) -> None:
    hidden = torch.tensor([[8.0]], dtype=torch.bfloat16)
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16)
    for backend in BACKENDS:
        _, grad, _ = run((hidden, weight, torch.tensor([0])), backend, device)
        expected = -3 * torch.sigmoid(torch.tensor(-8.0, dtype=torch.float64))
        assert abs(grad.item() / expected.item() - 1) < 2e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_gradients(assert_close, device, backend) -> None:
    hidden, weight, targets = (t.to(device) for t in draw(6, 4, 9, torch.float32))
    with torch.no_grad():
        loss = linear_cross_entropy(hidden.view(2, 3, 4), weight, targets.view(2, 3), backend=backend)
    assert_close(loss, linear_cross_entropy(hidden, weight, targets, backend="naive"), 2e-6)


def test_target_outside_the_vocabulary_is_nan_where_it_cannot_be_checked(device) -> None:
    arguments = (
        torch.ones(2, 4, device=device),
        torch.ones(3, 4, device=device),
        torch.tensor([0, 3], device=device),
    )
    loss = torch.ops.tinykernels.linear_cross_entropy(*arguments, -100, None, 0.0, True, False, "triton")[0]
    assert loss.isnan()


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(device, backend) -> None:
    hidden, weight, targets = (t.to(device) for t in draw(4, 3, 5, torch.float32))
    arguments = (
        hidden.requires_grad_(),
        weight.requires_grad_(),
        targets,
        -100,
        None,
        0.1,
        True,
        True,
        backend,
    )
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.tinykernels.linear_cross_entropy.default, arguments, test_utils=checks)


@pytest.mark.slow
def test_fullgraph_compile_and_aot_opcheck(assert_close, device) -> None:
    inputs = [t.to(device) for t in draw(6, 4, 9, torch.float32)]
    leaves = [t.requires_grad_() for t in inputs[:2]]

    def step(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(hidden * 2, weight, targets)

    expected = torch.autograd.grad(step(*leaves, inputs[2]), leaves)
    actual = torch.autograd.grad(torch.compile(step, fullgraph=True)(*leaves, inputs[2]), leaves)
    for left, right in zip(actual, expected, strict=True):
        assert_close(left, right, 1e-6)
    arguments = (*leaves, inputs[2], -100, None, 0.1, True, True, "torch")
    torch.library.opcheck(torch.ops.tinykernels.linear_cross_entropy.default, arguments)


H, W, Y = torch.zeros(2, 4), torch.zeros(5, 4), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(5, 3)}, r"weight must have shape \(V 4\)"),
        ({"weight": torch.zeros(0, 4)}, "weight must have at least one row"),
        ({"targets": Y[:1]}, r"targets must have hidden's shape \(2,\), got \(1,\)"),
        ({"targets": Y.int()}, "targets must be int64"),
        ({"targets": Y + 5}, r"targets must be in \[0, 5\) or -100, got 5"),
        ({"weight": W.double()}, "weight must have hidden's dtype float32"),
        ({"softcap": 0.0}, "softcap must be a finite number above 0"),
        ({"z_loss": -1.0}, "z_loss must be a finite number"),
        ({"reduction": "none"}, "reduction must be 'mean' or 'sum', got 'none'"),
    ],
)
def test_bad_arguments(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**({"hidden": H, "weight": W, "targets": Y} | change))
