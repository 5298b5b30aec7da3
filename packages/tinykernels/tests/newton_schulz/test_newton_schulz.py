"""Claim: newton_schulz's torch and triton paths equal the matrix-by-matrix oracle in float64, for wide,
tall and square stacks, and bring the singular values of a rectangular Gaussian matrix into [0.68, 1.14].

uv run pytest packages/tinykernels/tests/newton_schulz
"""

import pytest
import torch

from tinykernels import newton_schulz

BACKENDS = ["torch", "triton"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3, 5), (2, 40, 17), (2, 3, 17, 40), (1, 33, 33), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_oracle(assert_close, device, backend, shape, dtype) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64).to(dtype)
    actual = newton_schulz(matrices.to(device), steps=3, backend=backend)
    expected = newton_schulz(matrices.double(), steps=3, backend="naive")
    assert actual.dtype == dtype
    assert actual.is_contiguous()
    assert_close(actual, expected, 2e-5 if dtype == torch.float32 else 5e-2)


def test_torch_path_is_float64_exact(assert_close) -> None:
    matrices = torch.randn(3, 20, 12, dtype=torch.float64)
    assert_close(newton_schulz(matrices, backend="torch"), newton_schulz(matrices, backend="naive"), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_tiles_and_their_mirror_images(assert_close, device, backend) -> None:
    matrices = torch.randn(1, 70, 90)
    actual = newton_schulz(matrices.to(device), steps=1, backend=backend)
    assert_close(actual, newton_schulz(matrices.double(), steps=1, backend="naive"), 2e-5)


def test_singular_values_come_near_one(device) -> None:
    matrices = torch.randn(4, 32, 64, generator=torch.Generator().manual_seed(0)).to(device)
    values = torch.linalg.svdvals(newton_schulz(matrices))
    assert values.min() > 0.65
    assert values.max() < 1.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_and_no_matrices(device, backend) -> None:
    assert not newton_schulz(torch.zeros(2, 4, 3, device=device), backend=backend).any()
    assert newton_schulz(torch.zeros(0, 4, 3, device=device), backend=backend).shape == (0, 4, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(device, backend) -> None:
    arguments = (torch.randn(2, 5, 3, device=device), 2, 3.0, -4.0, 2.0, 1e-7, backend)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.tinykernels.newton_schulz.default, arguments, test_utils=checks)


@pytest.mark.slow
def test_fullgraph_compile(assert_close, device) -> None:
    matrices = torch.randn(2, 5, 3, device=device)
    compiled = torch.compile(lambda x: newton_schulz(x * 2), fullgraph=True)
    assert_close(compiled(matrices), newton_schulz(matrices * 2), 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrices": torch.zeros(3)}, "matrices must be a tensor"),
        ({"matrices": torch.zeros(3, 0)}, "matrices must be a tensor"),
        ({"matrices": torch.zeros(3, 3, dtype=torch.int32)}, "matrices must be float32"),
        ({"matrices": torch.zeros(3, 3), "steps": -1}, "steps must not be negative"),
        ({"matrices": torch.zeros(3, 3), "eps": 0.0}, "eps must be a finite number above 0"),
    ],
)
def test_bad_arguments(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        newton_schulz(**arguments)
