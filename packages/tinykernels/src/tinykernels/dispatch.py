"""Which implementation of an operation runs.

Every operation takes `backend="auto" | "triton" | "torch" | "naive"`:

- `naive`: the oracle, a readable loop under plain autograd;
- `torch`: fast on a CPU, runs on any device;
- `triton`: needs an NVIDIA GPU of compute capability 8.0 or newer (or `TRITON_INTERPRET=1`, where kernels are
  interpreted on CPU tensors: the way tests prove them without a GPU);
- `auto`: `triton` where the device and the call allow it, else `torch`. On a GPU that fallback is noticed
  once for each operation and reason; on a CPU `torch` is simply the right choice.

Only `auto` falls back. A forced backend that cannot run raises BackendError. No module imports Triton
before a Triton kernel is chosen: the package works without it, and tests can still turn the interpreter on.
"""

import importlib.util
import warnings
from typing import Literal, get_args

import torch

Backend = Literal["auto", "triton", "torch", "naive"]
BACKENDS: tuple[str, ...] = get_args(Backend)
MINIMUM_CAPABILITY = (8, 0)  # Triton's bf16 dot spills and its int8 dot fails to compile below it

_noticed: set[tuple[str, str]] = set()


class BackendError(ValueError):
    """A backend was asked for by name and cannot run this call."""


def interpreting() -> bool:
    """Whether Triton kernels are interpreted on CPU tensors (TRITON_INTERPRET=1, read by Triton)."""
    if importlib.util.find_spec("triton") is None:
        return False
    from triton import knobs

    return bool(knobs.runtime.interpret)


def unavailable(device: torch.device) -> str | None:
    """Why no Triton kernel runs on `device`, or None if they do."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if interpreting():
        return None
    if device.type != "cuda":
        return f"the tensors are on {device.type}, Triton kernels need an NVIDIA GPU"
    if torch.version.hip is not None:
        return "the kernels are not tested on AMD GPUs"
    capability = torch.cuda.get_device_capability(device)
    if capability < MINIMUM_CAPABILITY:
        return f"the GPU is sm_{capability[0]}{capability[1]}, the kernels need sm_80 or newer"
    return None


@torch.compiler.assume_constant_result
def choose(operation: str, backend: str, device: torch.device, unsupported: str | None = None) -> str:
    """The backend that runs: "triton", "torch" or "naive".

    `unsupported` is the operation's own reason why its Triton kernels cannot do this call (a head size, a
    dtype), None if they can. Raises ValueError for an unknown backend, BackendError for a forced one that
    cannot run.
    """
    if backend not in BACKENDS:
        raise ValueError(f"{operation}: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend in ("torch", "naive"):
        return backend
    reason = unavailable(device) or unsupported
    if backend == "triton":
        if reason is not None:
            raise BackendError(f"{operation}: backend='triton' cannot run: {reason}; use backend='auto'")
        return "triton"
    if device.type == "cpu":
        return "torch"
    if reason is None:
        return "triton"
    if (operation, reason) not in _noticed:
        _noticed.add((operation, reason))
        warnings.warn(f"tinykernels.{operation} runs its torch path: {reason}", stacklevel=3)
    return "torch"
