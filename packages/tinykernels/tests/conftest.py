"""Every test of this package: Triton kernels interpreted where there is no GPU, uninitialised memory full of NaN."""

import os
import sys
from collections.abc import Callable

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

if DEVICE == "cpu":
    # Triton reads it when a kernel is decorated, and its own library when it is first imported.
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise pytest.UsageError("triton was imported before TRITON_INTERPRET=1 was set")
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def device() -> str:
    """Where kernels run: "cuda" if there is one, else "cpu", interpreted."""
    return DEVICE


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.empty and its kin return NaN (the largest integer for integers): reading before writing shows."""

    def poisoned(create: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(*arguments: object, **options: object) -> torch.Tensor:
            tensor = create(*arguments, **options)
            if torch.compiler.is_compiling() or isinstance(tensor, torch._subclasses.FakeTensor):
                return tensor
            with torch.no_grad():
                if tensor.is_floating_point():
                    return tensor.fill_(float("nan"))
                if tensor.dtype == torch.bool:
                    return tensor.fill_(True)
                return tensor.fill_(torch.iinfo(tensor.dtype).max)

        return run

    with torch.device("meta"):  # torch lists its constructors when the first such block calls one, and keeps the list:
        torch.empty(0)  # it must hold the functions themselves
    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(torch.Tensor, name, poisoned(getattr(torch.Tensor, name)))


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """assert_close(actual, expected, bound): equal shapes, finite, and the largest difference at most
    `bound` times
    the largest expected value (times 0.1 where that is smaller: a gradient that is zero has no scale of its own)."""

    def check(actual: torch.Tensor, expected: torch.Tensor, bound: float, what: str = "") -> None:
        assert actual.shape == expected.shape, what
        actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
        assert torch.isfinite(actual).all(), f"{what}: not finite"
        if expected.numel() == 0:
            return
        error = (actual - expected).abs().max() / expected.abs().max().clamp(min=0.1)
        assert error <= bound, f"{what}: relative error {error:.3g} > {bound:.3g}"

    return check
