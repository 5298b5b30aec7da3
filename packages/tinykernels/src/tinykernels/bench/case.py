"""What is measured: one operation at one shape, our path beside its rivals, with the work it cannot avoid."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Case:
    """One row of the benchmark.

    operation, label: what, and its shape and direction ("forward", "forward + backward").
    ours: the call that is timed. rivals: other implementations of the same, by name.
    error: computes the largest relative error of `ours`; timing starts only if it is at most `bound`.
    bytes, flops: memory traffic and matrix-product operations that no implementation avoids, for the limit.
    goal: rival and the ratio rival time / our time to reach, or None; share: the part of the limit to
    reach, or None.
    """

    operation: str
    label: str
    ours: Callable[[], object]
    error: Callable[[], float]
    bound: float
    rivals: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    bytes: float = 0.0
    flops: float = 0.0
    goal: tuple[str, float] | None = None
    share: float | None = None


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference over the largest expected value; infinite if anything is not finite."""
    actual, expected = actual.detach().double(), expected.detach().double()
    if not bool(torch.isfinite(actual).all()):
        return float("inf")
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def training_step(
    function: Callable[..., torch.Tensor], leaves: tuple[torch.Tensor, ...], upstream: torch.Tensor
) -> Callable[[], tuple[torch.Tensor, ...]]:
    """A call that runs `function(*leaves)` forward and backward and returns the leaves' gradients."""
    return lambda: torch.autograd.grad(function(*leaves), leaves, upstream)


def gradient_error(
    ours: Callable[[], tuple[torch.Tensor, ...]], exact: Callable[[], tuple[torch.Tensor, ...]]
) -> Callable[[], float]:
    """The largest relative error over all gradients."""
    return lambda: max(relative_error(a, e) for a, e in zip(ours(), exact(), strict=True))
