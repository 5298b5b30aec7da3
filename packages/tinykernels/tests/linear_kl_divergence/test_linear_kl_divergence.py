"""Claim: linear_kl_divergence's torch and triton paths equal the token-by-token oracle in float64, both
directions, loss and both gradients; the teacher gets none; equal models are at zero.

uv run pytest packages/tinykernels/tests/linear_kl_divergence
"""

import pytest
import torch
import torch.nn.functional as F

from tinykernels import linear_kl_divergence
from tinykernels.linear_cross_entropy import chunks

BACKENDS = ["torch", "triton"]


def draw(tokens: int, vocabulary: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens + vocabulary)
    shapes = [(tokens, 6), (vocabulary, 6), (tokens, 9), (vocabulary, 9)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def run(inputs: list[torch.Tensor], mask: torch.Tensor | None, backend: str, where: str, **options: object) -> list:
    student = [t.to(where).clone().requires_grad_() for t in inputs[:2]]
    teacher = [t.to(where).clone().requires_grad_() for t in inputs[2:]]
    mask = None if mask is None else mask.to(where)
    loss = linear_kl_divergence(*student, *teacher, mask=mask, backend=backend, **options)
    (loss * 3).backward()
    assert all(t.grad is None for t in teacher)
    return [loss, *(t.grad for t in student)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(
    ("dtype", "temperature", "reduction"),
    [(torch.float32, 1.0, "mean"), (torch.float32, 2.5, "sum"), (torch.bfloat16, 2.0, "mean")],
)
def test_equals_the_oracle(assert_close, device, backend, direction, dtype, temperature, reduction) -> None:
    inputs = draw(11, 37, dtype)
    mask = torch.arange(11) % 3 != 0
    options = {"direction": direction, "temperature": temperature, "reduction": reduction}
    expected = run([t.double() for t in inputs], mask, "naive", "cpu", **options)
    actual = run(inputs, mask, backend, device, **options)
    for name, left, right in zip(("loss", "hidden", "weight"), actual, expected, strict=True):
        assert_close(left, right, 1e-5 if dtype == torch.float32 else 4e-2, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_long_vocabulary_in_chunks_equals_pytorch(assert_close, device, backend, direction, monkeypatch) -> None:
    for name in ("CPU_CHUNK_BYTES", "GPU_CHUNK_BYTES"):
        monkeypatch.setattr(chunks, name, 16 * 2 * 2100 * 4)
    inputs = [t.to(device) for t in draw(18, 2100, torch.float32)]
    student, teacher = (F.log_softmax(F.linear(*pair), -1) for pair in (inputs[:2], inputs[2:]))
    pair = (student, teacher) if direction == "forward" else (teacher, student)
    expected = F.kl_div(*pair, reduction="batchmean", log_target=True)
    assert_close(run(inputs, None, backend, device, direction=direction)[0], expected, 1e-5)


@pytest.mark.parametrize("backend", [*BACKENDS, "naive"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_equal_models_are_at_zero(device, backend, direction) -> None:
    inputs = draw(4, 12, torch.float32)[:2]
    loss, grad_hidden, grad_weight = run(inputs * 2, None, backend, device, direction=direction)
    assert abs(loss.item()) < 1e-6
    assert grad_hidden.abs().max() < 1e-5
    assert grad_weight.abs().max() < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_tokens_change_nothing(device, backend) -> None:
    inputs = draw(4, 12, torch.float32)
    mask = torch.tensor([True, False, True, False])
    loss = run(inputs, mask, backend, device)[0]
    inputs[0][1], inputs[2][3] = 7.0, -7.0
    assert run(inputs, mask, backend, device)[0] == loss
    nothing = run(inputs, torch.zeros(4, dtype=torch.bool), backend, device)
    assert all(not t.any() for t in nothing)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(device, backend) -> None:
    inputs = [t.to(device) for t in draw(3, 5, torch.float32)]
    arguments = (
        *(t.requires_grad_() for t in inputs[:2]),
        *inputs[2:],
        torch.ones(3, dtype=torch.bool, device=device),
    )
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.tinykernels.linear_kl_divergence.default
    torch.library.opcheck(operator, (*arguments, 2.0, True, True, True, backend), test_utils=checks)


@pytest.mark.slow
def test_fullgraph_compile(assert_close, device) -> None:
    inputs = [t.to(device) for t in draw(3, 5, torch.float32)]
    inputs[0].requires_grad_()

    def step(hidden: torch.Tensor) -> torch.Tensor:
        return linear_kl_divergence(hidden * 2, *inputs[1:], direction="reverse")

    (expected,) = torch.autograd.grad(step(inputs[0]), inputs[0])
    (actual,) = torch.autograd.grad(torch.compile(step, fullgraph=True)(inputs[0]), inputs[0])
    assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_weight": torch.zeros(4, 3)}, "teacher_weight must have shape .* with V = 5"),
        ({"teacher_hidden": torch.zeros(3, 3)}, "must have hidden's leading shape"),
        ({"mask": torch.ones(2)}, "mask must be bool"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
        ({"direction": "both"}, "direction must be 'forward' or 'reverse'"),
        ({"reduction": "none"}, "reduction must be 'mean' or 'sum'"),
    ],
)
def test_bad_arguments(change, message) -> None:
    good = {"hidden": (2, 4), "weight": (5, 4), "teacher_hidden": (2, 3), "teacher_weight": (5, 3)}
    with pytest.raises(ValueError, match=message):
        linear_kl_divergence(**({name: torch.zeros(shape) for name, shape in good.items()} | change))
