"""Claim: only backend="auto" falls back, once noticed; a forced backend that cannot run raises before any
launch; the package imports and computes without Triton.

uv run pytest packages/tinykernels/tests/test_dispatch.py
"""

import subprocess
import sys
import warnings

import pytest
import torch

from tinykernels import dispatch
from tinykernels.dispatch import BackendError, choose

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A pretended sm_90 card, without the interpreter."""
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(dispatch, "_noticed", set())
    return monkeypatch


def test_auto_takes_torch_on_a_cpu_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("operation", "auto", CPU) == "torch"
        assert choose("operation", "auto", CPU, "head size 999") == "torch"


@pytest.mark.parametrize("backend", ["torch", "naive"])
def test_forced_paths_run_anywhere(backend) -> None:
    assert choose("operation", backend, CPU, "unsupported by triton") == backend


def test_auto_takes_triton_on_a_gpu(gpu) -> None:
    assert choose("operation", "auto", CUDA) == "triton"
    assert choose("operation", "triton", CUDA) == "triton"


def test_an_old_gpu_falls_back_with_one_notice(gpu) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.warns(UserWarning, match="operation runs its torch path: the GPU is sm_75"):
        assert choose("operation", "auto", CUDA) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("operation", "auto", CUDA) == "torch"
    with pytest.raises(BackendError, match="backend='triton' cannot run: the GPU is sm_75"):
        choose("operation", "triton", CUDA)


def test_an_unsupported_call_falls_back_or_raises(gpu) -> None:
    with pytest.warns(UserWarning, match="head size 999"):
        assert choose("operation", "auto", CUDA, "head size 999") == "torch"
    with pytest.raises(BackendError, match="head size 999"):
        choose("operation", "triton", CUDA, "head size 999")


def test_forced_triton_on_a_cpu_raises_unless_interpreted(gpu) -> None:
    with pytest.raises(BackendError, match="Triton kernels need an NVIDIA GPU"):
        choose("operation", "triton", CPU)
    gpu.setattr(dispatch, "interpreting", lambda: True)
    assert choose("operation", "triton", CPU) == "triton"


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="backend must be one of auto, triton, torch, naive, got 'cuda'"):
        choose("operation", "cuda", CPU)


def test_works_without_triton() -> None:
    """In a process where Triton cannot be imported, as on a machine without it."""
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == "triton" else find(name, *rest)
sys.modules["triton"] = None
import torch, tinykernels
x = torch.randn(3, 8, requires_grad=True)
tinykernels.rms_norm(x, torch.ones(8)).sum().backward()
q = torch.randn(1, 4, 2, 8)
tinykernels.attention(q, q, q)
try:
    tinykernels.rms_norm(x, backend="triton")
except tinykernels.BackendError as error:
    assert "triton is not installed" in str(error)
else:
    raise AssertionError("no error")
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "fine", done.stderr
