"""Checks of an operation's arguments before any launch: one line that names the argument, what was
expected, what came.

Shapes are written as names: `shapes("attention", q=(q, "B T H D"), k=(k, "B S G D"))` returns the sizes
bound to the names and raises ValueError where one name stands for two sizes; a number stands for itself.
Checks that must read values (a decreasing cu_seqlens, a NaN scale) look at a CPU tensor on every call. On a
GPU, where a look waits for the device, each tensor is looked at once until it is written to again, and
never while a CUDA graph is captured or while torch.compile traces.
"""

import weakref
from collections.abc import Callable

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# id -> (tensor, version): tensors compare elementwise, so no WeakKeyDictionary
_looked: dict[tuple[int, str], tuple[weakref.ReferenceType[torch.Tensor], int]] = {}


def shapes(operation: str, **arguments: tuple[torch.Tensor | None, str]) -> dict[str, int]:
    """Bind the names of each argument's dimensions to sizes; None arguments are skipped.

    Raises ValueError if an argument is not a tensor, has another number of dimensions, or contradicts an
    earlier one.
    """
    sizes: dict[str, int] = {}
    for name, (tensor, spelled) in arguments.items():
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{operation}: {name} must be a tensor ({spelled}), got {type(tensor).__name__}")
        letters = spelled.split()
        if tensor.dim() != len(letters):
            raise ValueError(f"{operation}: {name} must have shape ({spelled}), got {tuple(tensor.shape)}")
        for letter, size in zip(letters, tensor.shape, strict=True):
            expected = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            if size != expected:
                raise ValueError(
                    f"{operation}: {name} must have shape ({spelled}) with {letter} = {expected}, "
                    f"got {tuple(tensor.shape)}"
                )
    return sizes


def dtypes(operation: str, allowed: tuple[torch.dtype, ...], **arguments: torch.Tensor | None) -> None:
    """Raise ValueError if an argument's dtype is not among `allowed`."""
    for name, tensor in arguments.items():
        if tensor is not None and tensor.dtype not in allowed:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            raise ValueError(f"{operation}: {name} must be {names}, got {str(tensor.dtype).removeprefix('torch.')}")


def same_dtype(operation: str, **arguments: torch.Tensor | None) -> None:
    """Raise ValueError if the arguments do not share the first one's dtype."""
    _same(operation, "dtype", lambda tensor: str(tensor.dtype).removeprefix("torch."), arguments)


def same_device(operation: str, **arguments: torch.Tensor | None) -> None:
    """Raise ValueError if the arguments do not share the first one's device."""
    _same(operation, "device", lambda tensor: str(tensor.device), arguments)


def _same(
    operation: str, what: str, read: Callable[[torch.Tensor], str], arguments: dict[str, torch.Tensor | None]
) -> None:
    first: tuple[str, str] | None = None
    for name, tensor in arguments.items():
        if tensor is None:
            continue
        if first is None:
            first = (name, read(tensor))
        elif read(tensor) != first[1]:
            raise ValueError(f"{operation}: {name} must have {first[0]}'s {what} {first[1]}, got {read(tensor)}")


def positive(operation: str, **arguments: float | None) -> None:
    """Raise ValueError if a number is given and is not finite and above zero."""
    for name, value in arguments.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{operation}: {name} must be a finite number above 0, got {value}")


def cu_seqlens(operation: str, boundaries: torch.Tensor | None, length: int, name: str = "cu_seqlens") -> None:
    """Check document boundaries (N + 1,) int32: from 0 to `length`, never decreasing (equal = empty document)."""
    if boundaries is None:
        return
    if not isinstance(boundaries, torch.Tensor) or boundaries.dim() != 1 or boundaries.shape[0] < 2:
        raise ValueError(f"{operation}: {name} must be a tensor (N + 1,) with N >= 1 documents")
    dtypes(operation, (torch.int32,), **{name: boundaries})
    if not may_look(boundaries, f"boundaries of {length}"):
        return
    values = boundaries.tolist()
    if values[0] != 0 or values[-1] != length:
        raise ValueError(f"{operation}: {name} must run from 0 to the length {length}, got {values[0]} to {values[-1]}")
    for index in range(len(values) - 1):
        if values[index] > values[index + 1]:
            raise ValueError(
                f"{operation}: {name} must never decrease, got {values[index]} before {values[index + 1]} "
                f"at index {index + 1}"
            )


def finite(operation: str, **arguments: torch.Tensor | None) -> None:
    """Raise ValueError if a tensor holds NaN or infinity."""
    for name, tensor in arguments.items():
        if tensor is not None and may_look(tensor, name) and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{operation}: {name} must be finite, got NaN or infinity")


def may_look(tensor: torch.Tensor, purpose: str) -> bool:
    """Whether a check for `purpose` should read this tensor's values now (see the module docstring)."""
    if torch.compiler.is_compiling():
        return False
    if tensor.device.type == "cpu":
        return True
    if tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return False
    key = (id(tensor), purpose)
    seen = _looked.get(key)
    if seen is not None and seen[0]() is tensor and seen[1] == _changes(tensor):
        return False
    remember(tensor, purpose)
    return True


def remember(tensor: torch.Tensor, purpose: str) -> None:
    """Note that the tensor, as it is now, needs no look for `purpose`: it was checked, or made by our own code."""
    key = (id(tensor), purpose)
    _looked[key] = (weakref.ref(tensor, lambda _: _looked.pop(key, None)), _changes(tensor))


def _changes(tensor: torch.Tensor) -> int:
    """How often the tensor was written to; tensors made in inference mode are not counted, and looked at once."""
    return -1 if tensor.is_inference() else tensor._version
