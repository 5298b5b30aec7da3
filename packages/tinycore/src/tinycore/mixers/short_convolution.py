"""Causal depthwise convolution over the newest few tokens of a document, as recurrent mixers put before their memory:

    y_t = sum_{j < K} w_j * x_{t-j}        x_{t-j} = 0 before the document begins

one filter w (K,) a channel. It starts as the identity (w_0 = 1), so that a model with it begins as one without.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ShortConvolution(nn.Module):
    """(B, K - 1 + T, channels) -> (B, T, channels), computed in the input's dtype."""

    undecayed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.taps = taps
        self.weight = nn.Parameter(torch.zeros(taps, channels))
        with torch.no_grad():
            self.weight[0] = 1.0

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x begins with the K - 1 tokens that came before; positions (B, T) of the tokens in their documents."""
        return _Convolve.apply(x, self.weight, positions)


class _Convolve(torch.autograd.Function):
    """Keeps the input, no copy of it for each tap. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, positions)
        y = weight[0] * x[:, len(weight) - 1 :]
        for tap in range(1, len(weight)):
            y = y + weight[tap] * _shifted(x, tap, len(weight), positions)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, positions = ctx.saved_tensors
        taps = len(weight)
        grad_x = F.pad(weight[0] * grad, (0, 0, taps - 1, 0))
        grad_weight = [(grad * x[:, taps - 1 :]).sum((0, 1))]
        for tap in range(1, taps):
            grad_weight.append((grad * _shifted(x, tap, taps, positions)).sum((0, 1)))
            there = (positions >= tap)[..., None]
            grad_x = grad_x + F.pad(torch.where(there, weight[tap] * grad, 0), (0, 0, taps - 1 - tap, tap))
        return grad_x, torch.stack(grad_weight), None


def _shifted(x: Tensor, tap: int, taps: int, positions: Tensor) -> Tensor:
    """The token `tap` before each of the last T, 0 where it is of another document."""
    first = taps - 1 - tap
    return torch.where((positions >= tap)[..., None], x[:, first : first + positions.shape[1]], 0)
