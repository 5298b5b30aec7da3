"""Other people's kernels for the same operations, where they are installed: Liger Kernel and flash-linear-attention.

Each function returns the rival by its name, or nothing.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

Rivals = dict[str, Callable[..., Any]]


def liger_rms_norm() -> Rivals:
    """Of (x, weight)."""
    functional = _functional("liger_kernel", "liger_kernel.transformers.functional")
    if functional is None:
        return {}
    return {"Liger": lambda x, weight: functional.liger_rms_norm(x, weight, 1e-5, in_place=False)}


def liger_linear_cross_entropy(targets: torch.Tensor) -> Rivals:
    """Of (hidden, weight): the mean loss."""
    functional = _functional("liger_kernel", "liger_kernel.transformers.functional")
    if functional is None:
        return {}
    return {"Liger": lambda hidden, weight: functional.liger_fused_linear_cross_entropy(hidden, weight, targets)}


def fla_gated_scan() -> Rivals:
    """Of (the logarithm of the forget gate, value): both of its kernels."""
    hgrn = _functional("fla", "fla.ops.hgrn")
    if hgrn is None:
        return {}
    return {
        "fla chunk": lambda gate, value: hgrn.chunk_hgrn(value, gate)[0],
        "fla recurrent": lambda gate, value: hgrn.fused_recurrent_hgrn(value, gate)[0],
    }


def _functional(package: str, module: str) -> Any:
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.import_module(module)
    except Exception:  # installed, and unable to run with these versions: as good as not there
        return None
